package netns

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	deviceName = "eth0"  // as in a pod: programs that bind to it by name work
	outerName  = "link0" // the daemon's end of the veth pair

	// queueLen is in packets of up to 64 KiB: room for the whole window of
	// eight fast flows, and for a burst of some hundred queries beside them;
	// 64 MiB at most. It is the TUN's ring as well.
	queueLen = 1024
)

// openDevice makes the session's packet device, a TUN if possible. The caller
// owns the descriptor.
func openDevice(name string, mtu int) (fd int, r ready, err error) {
	fd, tunErr := openTUN(name)
	if tunErr == nil {
		return fd, ready{Kind: kindTUN}, nil
	}
	fd, r, vethErr := openVeth(name, mtu)
	if vethErr != nil {
		return -1, ready{}, &deviceError{tun: tunErr, veth: vethErr}
	}
	return fd, r, nil
}

func openTUN(name string) (int, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("name device: %w", err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "ioctl TUNSETIFF", Path: path, Err: err}
	}
	return fd, nil
}

// openVeth makes a veth pair and a packet socket on the daemon's end. Both ends
// are in the namespace, yet the namespace ignores what arrives at the daemon's
// end: without ARP every frame bears the sender's own address.
func openVeth(name string, mtu int) (int, ready, error) {
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu, TxQLen: queueLen},
		PeerName:  outerName,
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return -1, ready{}, fmt.Errorf("add veth pair: %w", err)
	}
	inner, err := netlink.LinkByName(name)
	if err != nil {
		return -1, ready{}, fmt.Errorf("find %s: %w", name, err)
	}
	outer, err := netlink.LinkByName(outerName)
	if err != nil {
		return -1, ready{}, fmt.Errorf("find %s: %w", outerName, err)
	}
	for _, l := range []netlink.Link{inner, outer} {
		if err := netlink.LinkSetARPOff(l); err != nil {
			return -1, ready{}, fmt.Errorf("switch off ARP on %s: %w", l.Attrs().Name, err)
		}
		if err := completePackets(l.Attrs().Name); err != nil {
			return -1, ready{}, err
		}
	}
	if err := netlink.LinkSetMTU(outer, mtu); err != nil {
		return -1, ready{}, fmt.Errorf("set MTU of %s: %w", outerName, err)
	}
	// No address, no router solicitation: the daemon's end is a wire. The file
	// is missing where the kernel has no IPv6, and read-only in a container.
	if err := writeSysctl("ipv6/conf/"+outerName+"/disable_ipv6", "1"); err != nil && !os.IsNotExist(err) && !errors.Is(err, unix.EROFS) {
		return -1, ready{}, err
	}
	if err := netlink.LinkSetUp(outer); err != nil {
		return -1, ready{}, fmt.Errorf("set %s up: %w", outerName, err)
	}
	fd, err := packetSocket(outer.Attrs().Index)
	if err != nil {
		return -1, ready{}, err
	}
	return fd, ready{Kind: kindVeth, Index: outer.Attrs().Index, Peer: inner.Attrs().HardwareAddr}, nil
}

// completePackets makes the kernel compute checksums and cut segments itself
// before a packet leaves on the device.
func completePackets(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO, unix.ETHTOOL_STXCSUM} {
		v := struct{ cmd, data uint32 }{cmd: cmd}
		if err := ethtool(fd, name, unsafe.Pointer(&v)); err != nil && err != unix.EOPNOTSUPP {
			return fmt.Errorf("switch off offload %#x of %s: %w", cmd, name, err)
		}
	}
	return nil
}

// ethtool is ioctl SIOCETHTOOL with the command at v (netdevice(7)).
func ethtool(fd int, name string, v unsafe.Pointer) error {
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // ifreq is 40 bytes
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.data = v
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if e != 0 {
		return e
	}
	return nil
}

// packetSocket opens a socket for the IP packets of the interface. The kernel
// adds and strips the Ethernet header (packet(7), SOCK_DGRAM).
func packetSocket(index int) (int, error) {
	// Protocol 0 until it is bound: no packet of another interface gets in.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt PACKET_IGNORE_OUTGOING", err)
	}
	// Best effort: the limit is net.core.rmem_max.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<20)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<20)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}
