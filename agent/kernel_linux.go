package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/netstack/relay"
)

// Kernel is the network namespace that the process lives in.
type Kernel struct{}

var _ Network = Kernel{}

// keepAlive finds dead peers of the pod's connections; it takes longer than a
// carrier may be away (180 s), so a redialled carrier never costs a flow.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 30 * time.Second, Count: 9}

// DialTCP implements Network.
func (Kernel) DialTCP(ctx context.Context, dst netip.AddrPort) (relay.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive, FallbackDelay: -1}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp", dst.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// Addrs implements Network.
func (Kernel) Addrs() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list interface addresses: %w", err)
	}
	var pod []netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			return nil, fmt.Errorf("interface address %s: %w", a, err)
		}
		if ip := prefix.Addr(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			pod = append(pod, ip)
		}
	}
	return pod, nil
}

// Resolv implements Network.
func (Kernel) Resolv() (string, error) {
	b, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // resolv.conf(5): then the name server is on the local host
	}
	return string(b), err
}

// ListenUDP implements Network. IP_RECVERR (ip(7)) makes the kernel report
// ICMP errors on the unconnected socket, with the destination they are about.
func (Kernel) ListenUDP(dst netip.Addr) (Datagrams, error) {
	network, level, opt := "udp4", unix.SOL_IP, unix.IP_RECVERR
	if dst.Is6() {
		network, level, opt = "udp6", unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, opt, 1) }); cerr != nil {
			return cerr
		}
		return os.NewSyscallError("setsockopt IP_RECVERR", err)
	}}
	pc, err := lc.ListenPacket(context.Background(), network, ":0")
	if err != nil {
		return nil, err
	}
	return &kernelUDP{pc.(*net.UDPConn)}, nil
}

// kernelUDP is an unconnected kernel UDP socket.
type kernelUDP struct{ conn *net.UDPConn }

func (u *kernelUDP) Close() error { return u.conn.Close() }

func (u *kernelUDP) WriteTo(payload []byte, dst netip.AddrPort) error {
	_, err := u.conn.WriteToUDPAddrPort(payload, dst)
	if isICMPError(err) {
		// The pending error of an earlier datagram was reported instead of
		// sending this one (IP_RECVERR sets so_error); it is cleared now.
		_, err = u.conn.WriteToUDPAddrPort(payload, dst)
	}
	return err
}

// TrySend is WriteTo without waiting for room in the socket's buffer: then it
// reports false.
func (u *kernelUDP) TrySend(payload []byte, dst netip.AddrPort) (sent bool, err error) {
	rc, err := u.conn.SyscallConn()
	if err != nil {
		return false, err
	}
	to := sockaddr(dst)
	var errno error
	err = rc.Write(func(fd uintptr) bool {
		if errno = unix.Sendto(int(fd), payload, unix.MSG_DONTWAIT, to); isICMPError(errno) {
			errno = unix.Sendto(int(fd), payload, unix.MSG_DONTWAIT, to) // as in WriteTo
		}
		return true
	})
	switch {
	case err != nil:
		return false, err
	case errno == unix.EAGAIN, errno == unix.EINTR, errno == unix.ENOBUFS:
		return false, nil
	}
	return errno == nil, os.NewSyscallError("sendto", errno)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// WaitReadable waits for a datagram or an error, and returns the error of a
// socket that is closed.
func (u *kernelUDP) WaitReadable() error {
	rc, err := u.conn.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

func (u *kernelUDP) ReadFrom(buf []byte) (int, netip.AddrPort, error) {
	for {
		n, src, err := u.conn.ReadFromUDPAddrPort(buf)
		if err == nil {
			return n, netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), nil
		}
		if un := u.unreachable(); un != nil {
			return 0, netip.AddrPort{}, un
		}
		if !isICMPError(err) {
			return 0, netip.AddrPort{}, err
		}
	}
}

// isICMPError reports whether err is one that ICMP messages cause: the kernel's
// icmp_err_convert and icmpv6_err_convert. Such an error is about one datagram;
// the socket is as good as before.
func isICMPError(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.EPROTO,
		syscall.EMSGSIZE, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP, syscall.EHOSTDOWN, syscall.ENONET:
		return true
	}
	return false
}

// unreachable takes one ICMP error off the socket's error queue, or returns nil.
func (u *kernelUDP) unreachable() *Unreachable {
	rc, err := u.conn.SyscallConn()
	if err != nil {
		return nil
	}
	var un *Unreachable
	oob := make([]byte, 512)
	err = rc.Control(func(fd uintptr) {
		_, oobn, _, from, err := unix.Recvmsg(int(fd), nil, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		if errno := extendedErrno(oob[:oobn]); errno != 0 {
			un = &Unreachable{Dst: addrPort(from), Err: errno}
		}
	})
	if err != nil || un == nil || !un.Dst.IsValid() {
		return nil
	}
	return un
}

// extendedErrno returns ee_errno of a struct sock_extended_err (ip(7)), or 0.
func extendedErrno(oob []byte) syscall.Errno {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		v4 := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(m.Data) >= int(unsafe.Sizeof(unix.SockExtendedErr{})) {
			return syscall.Errno(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
