package farend

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is a socket of a program, by a duplicate of its descriptor: the same open
// file. Who made the duplicate closes it.
type Socket struct {
	FD     int
	Domain int // AF_INET or AF_INET6
}

const (
	// ConnectTimeout is how long Linux tries to connect by default: six
	// retransmissions (tcp(7), tcp_syn_retries).
	ConnectTimeout = 127 * time.Second
	// Patience is how long a connect of a non-blocking socket waits for an answer
	// that it can return. One thread of the program stands still meanwhile; later
	// answers reach it as those of a kernel do, by readiness and SO_ERROR.
	Patience = 100 * time.Millisecond

	// awaitStep is how often a wait looks whether it is still wanted.
	awaitStep = time.Second
)

// Waits tells whether the socket is non-blocking, and how long a connect may
// take: zero is for ever.
func (s Socket) Waits() (nonblocking bool, limit time.Duration) {
	if Nonblocking(s.FD) {
		return true, Patience
	}
	if tv, err := unix.GetsockoptTimeval(s.FD, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil {
		return false, time.Duration(tv.Nano())
	}
	return false, 0
}

// Nonblocking reports whether the descriptor does not wait.
func Nonblocking(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_NONBLOCK != 0
}

// Await waits until the descriptor is ready, reports false if it is not within
// limit or before ctx ends.
func Await(ctx context.Context, fd int, events int16, limit time.Duration) bool {
	for end := time.Now().Add(limit); ; {
		left := min(time.Until(end), awaitStep)
		if left <= 0 || ctx.Err() != nil {
			return false
		}
		if Poll(fd, events, left) {
			return true
		}
	}
}

// Poll waits for one descriptor, and reports whether it is ready.
func Poll(fd int, events int16, limit time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll(fds, max(0, int(time.Until(end).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		return err == nil && n > 0
	}
}

// States of a stream (linux/tcp_states.h).
const (
	Established = 1
	Connecting  = 2
	answering   = 3 // SYN_RECV
	Closed      = 7
)

// State is the state of a stream, -1 if it is none.
func State(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return -1
	}
	return int(info.State)
}

// loopback returns the loopback address that the socket can reach: 127.0.0.1, but
// for one that is bound to IPv6 alone.
func (s Socket) loopback() netip.Addr {
	v4 := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if s.Domain == unix.AF_INET {
		return v4
	}
	if a := Name(s.FD).Addr(); a.Is6() && !a.IsUnspecified() {
		return netip.IPv6Loopback()
	}
	only, err := unix.GetsockoptInt(s.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	if err == nil && only != 0 && unix.SetsockoptInt(s.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0) != nil {
		return netip.IPv6Loopback() // it is bound
	}
	return v4
}

// domainOf is the family of sockets that have the address.
func domainOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Sockaddr is a as x/sys has it, for a socket of domain.
func Sockaddr(domain int, a netip.AddrPort) unix.Sockaddr {
	if domain == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// AddrPort is the inverse of Sockaddr. Mapped addresses are IPv4.
func AddrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Name is getsockname(2).
func Name(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return AddrPort(sa)
}

// Peer is getpeername(2).
func Peer(fd int) netip.AddrPort {
	sa, err := unix.Getpeername(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return AddrPort(sa)
}
