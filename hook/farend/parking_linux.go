package farend

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Parking keeps a socket in the state of a connect that nobody has answered: it
// sends its SYNs to a listener whose queue is full. The queue holds one
// connection of our own and takes no other.
type Parking struct {
	at     netip.AddrPort
	ln     int // -1 once closed
	filler int
	hold   int // keeps the port while nothing listens on it; -1 = none
}

// Park lets the socket, a stream, connect to where no answer comes from.
func Park(s Socket) (_ *Parking, err error) {
	p := &Parking{filler: -1, hold: -1}
	if p.ln, p.at, err = s.listenLoop(0, true); err != nil {
		return nil, err
	}
	if err = p.fill(); err == nil {
		if err = unix.Connect(s.FD, Sockaddr(s.Domain, p.at)); err == unix.EINPROGRESS {
			return p, nil
		}
		err = errors.Join(fmt.Errorf("park connect: %w", unix.EIO), err)
	}
	p.Close()
	return nil, err
}

// fill makes the listener's queue full.
func (p *Parking) fill() error {
	fd, err := unix.Socket(domainOf(p.at.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	p.filler = fd
	err = unix.Connect(fd, Sockaddr(domainOf(p.at.Addr()), p.at))
	if err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("fill queue: %w", err)
	}
	if !Poll(p.ln, unix.POLLIN, loopTimeout) { // a stranger's connection does as well
		return fmt.Errorf("fill queue: %w", unix.ETIMEDOUT)
	}
	return nil
}

// Close lets go of what keeps the socket waiting.
func (p *Parking) Close() {
	for _, fd := range []*int{&p.ln, &p.filler, &p.hold} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// bound returns a socket with the parking's address.
func (p *Parking) bound() (int, error) {
	domain := domainOf(p.at.Addr())
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(fd, Sockaddr(domain, p.at))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind far end: %w", err)
	}
	return fd, nil
}

// Meet connects to the socket from where it is trying to connect to, and lends the
// far end to attach. Both ends have sent their SYN then, which TCP takes for a
// connection (RFC 9293, 3.5).
func (p *Parking) Meet(s Socket, attach func(fd int) error) error {
	fd, err := p.bound()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	local := Name(s.FD)
	err = unix.Connect(fd, Sockaddr(domainOf(p.at.Addr()), local))
	if err == unix.EINPROGRESS {
		if Poll(fd, unix.POLLOUT, loopTimeout) {
			err = nil
		}
	}
	// Only one socket can have both addresses, so if ours stands it is this one's. That may
	// stand a moment later, and then be past Established at once: a program may end its
	// direction as soon as it is connected.
	if err != nil || !stands(s.FD) || Peer(s.FD) != p.at || Peer(fd) != local {
		return fmt.Errorf("meet late connect: %w", errors.Join(unix.ECONNABORTED, err))
	}
	return attach(fd)
}

// stands reports whether a stream that connects comes to be connected, or was.
func stands(fd int) bool {
	if !Poll(fd, unix.POLLOUT, loopTimeout) {
		return false
	}
	switch State(fd) {
	case -1, Connecting, answering, Closed:
		return false
	}
	return true
}

// Refuse lets the connect fail: by a reset where it was refused, else by the
// timeout of the program's kernel, which is as near as a socket can be told. It
// waits for that, or for ctx.
func (p *Parking) Refuse(ctx context.Context, s Socket, errno syscall.Errno) {
	if errno == unix.ECONNREFUSED {
		if hold, err := p.bound(); err == nil {
			p.hold = hold // so that nobody else can listen there
			unix.Close(p.ln)
			p.ln = -1
			Await(ctx, s.FD, unix.POLLOUT, ConnectTimeout)
			return
		}
	}
	old, err := unix.GetsockoptInt(s.FD, unix.IPPROTO_TCP, unix.TCP_SYNCNT)
	if err == nil && unix.SetsockoptInt(s.FD, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1) == nil {
		Await(ctx, s.FD, unix.POLLOUT, ConnectTimeout)
		_ = unix.SetsockoptInt(s.FD, unix.IPPROTO_TCP, unix.TCP_SYNCNT, old)
	}
}
