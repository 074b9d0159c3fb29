package supervisor

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const portDNS = 53

// sockaddr reads a socket address of size bytes from the caller's memory.
func (r *relay) sockaddr(n *notification, addr uint64, size uint32) ([]byte, error) {
	if size < 2 || size > sizeofSockaddrStorage {
		return nil, unix.EINVAL
	}
	buf := make([]byte, size)
	if err := r.read(n, addr, buf); err != nil {
		return nil, err
	}
	return buf, nil
}

// read fills buf from the caller's memory.
func (r *relay) read(n *notification, addr uint64, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	m, err := readMemory(int(n.Pid), addr, buf)
	if err != nil {
		return err
	}
	if m < len(buf) {
		return unix.EFAULT
	}
	if !r.sup.alive(n) {
		return unix.ENOENT
	}
	return nil
}

// write copies data into the caller's memory.
func (r *relay) write(n *notification, addr uint64, data []byte) error {
	return r.scatter(n, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(data)}}, data)
}

// scatter copies data into the caller's buffers.
func (r *relay) scatter(n *notification, to []unix.RemoteIovec, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	m, err := writeBuffers(int(n.Pid), to, data)
	if err != nil {
		return err
	}
	if m < len(data) {
		return unix.EFAULT
	}
	return nil
}

// family returns the family of a socket address of at least two bytes.
func family(sa []byte) int { return int(binary.LittleEndian.Uint16(sa)) }

// parseSockaddr reads an IPv4 or IPv6 socket address. Mapped addresses are IPv4.
func parseSockaddr(sa []byte) (netip.AddrPort, bool) {
	switch {
	case family(sa) == unix.AF_INET && len(sa) >= sizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa[4:8])), binary.BigEndian.Uint16(sa[2:])), true
	case family(sa) == unix.AF_INET6 && len(sa) >= sizeofSockaddrInet6-4: // the kernel lets the scope be missing
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(sa[8:24])).Unmap(), binary.BigEndian.Uint16(sa[2:])), true
	}
	return netip.AddrPort{}, false
}

// formatSockaddr is a as a socket of domain shows it.
func formatSockaddr(domain int, a netip.AddrPort) []byte {
	if domain == unix.AF_INET {
		sa := make([]byte, sizeofSockaddrInet4)
		binary.LittleEndian.PutUint16(sa, unix.AF_INET)
		binary.BigEndian.PutUint16(sa[2:], a.Port())
		copy(sa[4:], a.Addr().AsSlice())
		return sa
	}
	sa := make([]byte, sizeofSockaddrInet6)
	binary.LittleEndian.PutUint16(sa, unix.AF_INET6)
	binary.BigEndian.PutUint16(sa[2:], a.Port())
	b := a.Addr().As16() // mapped, if IPv4
	copy(sa[8:], b[:])
	return sa
}

// writeSockaddr gives the caller an address as getpeername(2) does: as much as
// there is room for, and its full length.
func (r *relay) writeSockaddr(n *notification, addr, lenAddr uint64, domain int, a netip.AddrPort) syscall.Errno {
	if addr == 0 {
		return 0
	}
	var size [4]byte
	if err := r.read(n, lenAddr, size[:]); err != nil {
		return unix.EFAULT
	}
	room := int32(binary.LittleEndian.Uint32(size[:]))
	if room < 0 {
		return unix.EINVAL
	}
	sa := formatSockaddr(domain, a)
	if err := r.write(n, addr, sa[:min(len(sa), int(room))]); err != nil {
		return unix.EFAULT
	}
	binary.LittleEndian.PutUint32(size[:], uint32(len(sa)))
	if err := r.write(n, lenAddr, size[:]); err != nil {
		return unix.EFAULT
	}
	return 0
}

// isLaptops reports whether a destination is this machine's own: loopback, and
// the unspecified address, which the kernel takes for it.
func isLaptops(a netip.AddrPort) bool { return a.Addr().IsLoopback() || a.Addr().IsUnspecified() }

// destination reads the address of connect(2) or sendto(2) for the socket.
func (s *relaySocket) destination(sa []byte) (netip.AddrPort, syscall.Errno) {
	dst, ok := parseSockaddr(sa)
	switch f := family(sa); {
	case !ok && (f == unix.AF_INET || f == unix.AF_INET6):
		return dst, unix.EINVAL
	case !ok, f == unix.AF_INET6 && s.domain == unix.AF_INET, f == unix.AF_INET && s.domain == unix.AF_INET6 && s.typ == unix.SOCK_STREAM:
		return dst, unix.EAFNOSUPPORT
	}
	// What only a neighbour on the laptop's own link could hear.
	if a := dst.Addr(); a.IsMulticast() || a.IsLinkLocalUnicast() && a.Is6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return dst, unix.ENETUNREACH
	}
	return dst, 0
}

// connectRaw is connect(2) with the bytes of a socket address.
func connectRaw(fd int, sa []byte) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
		switch e {
		case 0:
			return nil
		case unix.EINTR: // signals are this process's own business
			continue
		}
		return e
	}
}
