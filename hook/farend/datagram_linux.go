package farend

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Meet makes a far end for the socket, of datagrams, and connects it to the
// socket: it hears nobody else. With connect the socket is connected to it too. The
// caller closes far.
func (s Socket) Meet(connect bool) (far int, at netip.AddrPort, err error) {
	loop := s.loopback()
	domain := domainOf(loop)
	far, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, at, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(far)
		}
	}()
	if err := unix.Bind(far, Sockaddr(domain, netip.AddrPortFrom(loop, 0))); err != nil {
		return -1, at, fmt.Errorf("bind far end: %w", err)
	}
	at = Name(far)
	if connect {
		if err := unix.Connect(s.FD, Sockaddr(s.Domain, at)); err != nil {
			return -1, at, fmt.Errorf("connect to far end: %w", err)
		}
	}
	local, err := s.local(loop)
	if err != nil {
		return -1, at, err
	}
	if err := unix.Connect(far, Sockaddr(domain, local)); err != nil {
		return -1, at, fmt.Errorf("connect far end: %w", err)
	}
	return far, at, nil
}

// local returns the address from which the socket sends to loop. It gets a port
// if it has none.
func (s Socket) local(loop netip.Addr) (netip.AddrPort, error) {
	at := Name(s.FD)
	if at.Port() == 0 {
		var sa unix.Sockaddr = &unix.SockaddrInet4{}
		if s.Domain == unix.AF_INET6 {
			sa = &unix.SockaddrInet6{}
		}
		if err := unix.Bind(s.FD, sa); err != nil {
			return at, fmt.Errorf("bind socket: %w", err)
		}
		at = Name(s.FD)
	}
	if at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(loop, at.Port()), nil
	}
	return at, nil
}
