package farend

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// loopTimeout bounds what happens on the loopback device alone.
const loopTimeout = 2 * time.Second

// listenLoop listens on a port of the loopback address that the socket reaches.
func (s Socket) listenLoop(backlog int, shared bool) (fd int, at netip.AddrPort, err error) {
	a := s.loopback()
	fd, err = unix.Socket(domainOf(a), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, at, os.NewSyscallError("socket", err)
	}
	if shared {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, Sockaddr(domainOf(a), netip.AddrPortFrom(a, 0)))
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, at, fmt.Errorf("listen on loopback: %w", err)
	}
	// A deferred connect would wait for the program's first byte.
	_ = unix.SetsockoptInt(s.FD, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 0)
	return fd, Name(fd), nil
}

// Join connects the socket, a stream, to a far end of its own and lends that to
// attach, which is to make a duplicate.
// The listener is there for microseconds; whoever else connects to it is hung up
// on, because only one socket can have the program's local address.
func (s Socket) Join(attach func(fd int) error) error {
	ln, at, err := s.listenLoop(8, false)
	if err != nil {
		return err
	}
	defer unix.Close(ln)
	// After a signal it goes on, as it does where the program does not wait.
	if err := unix.Connect(s.FD, Sockaddr(s.Domain, at)); err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		return fmt.Errorf("connect to far end: %w", err)
	}
	fd, err := acceptFrom(ln, Name(s.FD))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if State(s.FD) != Established || Peer(s.FD) != at {
		return fmt.Errorf("connect to far end: %w", unix.ECONNABORTED)
	}
	return attach(fd)
}

// acceptFrom accepts the connection of the socket at from.
func acceptFrom(ln int, from netip.AddrPort) (int, error) {
	for end := time.Now().Add(loopTimeout); ; {
		if left := time.Until(end); left <= 0 || !Poll(ln, unix.POLLIN, left) {
			return -1, fmt.Errorf("accept far end: %w", unix.ECONNABORTED)
		}
		fd, sa, err := unix.Accept4(ln, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == nil && AddrPort(sa) == from:
			return fd, nil
		case err == nil:
			unix.Close(fd) // a stranger
		case err != unix.EAGAIN && err != unix.EINTR && err != unix.ECONNABORTED:
			return -1, os.NewSyscallError("accept", err)
		}
	}
}
