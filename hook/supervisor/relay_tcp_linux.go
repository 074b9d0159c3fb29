package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// connectTimeout is how long Linux tries to connect by default: six
	// retransmissions (tcp(7), tcp_syn_retries).
	connectTimeout = 127 * time.Second
	// patience is how long a connect of a non-blocking socket waits for an answer
	// that it can return. One thread of the program stands still meanwhile; later
	// answers reach it as those of a kernel do, by readiness and SO_ERROR.
	patience = 100 * time.Millisecond
	// loopTimeout bounds what happens on the loopback device alone.
	loopTimeout = 2 * time.Second
	// aliveInterval is how often a wait looks whether the caller still waits.
	aliveInterval = time.Second
)

// opened is an answer of the daemon.
type opened struct {
	flow *switchboard.Flow
	err  error
}

// connectTCP opens the flow and then connects the socket to its far end.
func (r *relay) connectTCP(n *notification, s *relaySocket, dst netip.AddrPort, sa []byte) verdict {
	if errno := s.begin(); errno != 0 {
		return fail(errno, nil)
	}
	parked := false
	defer func() {
		if !parked {
			s.end()
		}
	}()
	nonblocking, limit := s.waits()
	ctx, cancel := context.WithTimeout(r.ctx, connectTimeout)
	answer := make(chan opened, 1)
	r.wg.Go(func() { // ends with ctx at the latest
		f, err := r.far.Open(ctx, flow.TCP, dst)
		answer <- opened{f, err}
	})
	abandon := func() {
		cancel()
		if o := <-answer; o.flow != nil {
			o.flow.Close()
		}
	}
	var late <-chan time.Time
	if nonblocking || limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	for {
		select {
		case o := <-answer:
			defer cancel()
			return r.connected(s, dst, sa, o, nonblocking)
		case <-alive.C:
			if !r.sup.alive(n) {
				abandon()
				return fail(unix.EINTR, errors.New("caller has ended"))
			}
		case <-late:
			late = nil
			if !nonblocking { // SO_SNDTIMEO
				abandon()
				return fail(unix.EINPROGRESS, nil)
			}
			p, err := park(s)
			if err != nil {
				r.sup.logger.Debug("connect goes on in the call", "err", err)
				continue
			}
			parked = true
			r.table.keep(s)
			r.wg.Go(func() { // ends with ctx at the latest
				defer r.table.release(s)
				defer s.end()
				defer p.close()
				defer cancel()
				r.unpark(s, dst, p, <-answer)
			})
			return fail(unix.EINPROGRESS, nil)
		}
	}
}

// begin claims the socket for a connect.
func (s *relaySocket) begin() syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.connecting:
		return unix.EALREADY
	case stateOf(s.fd) != tcpClose:
		return unix.EISCONN
	}
	s.connecting = true
	return 0
}

// setPeer names the destination before the socket is connected to its far end:
// the program may ask for it as soon as that stands.
func (s *relaySocket) setPeer(dst netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peer = dst
}

func (s *relaySocket) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connecting = false
}

// waits tells whether the socket is non-blocking, and how long a connect may
// take: zero is for ever.
func (s *relaySocket) waits() (nonblocking bool, limit time.Duration) {
	if isNonblocking(s.fd) {
		return true, patience
	}
	if tv, err := unix.GetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil {
		return false, time.Duration(tv.Nano())
	}
	return false, 0
}

func isNonblocking(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_NONBLOCK != 0
}

// connected acts on the daemon's answer while the caller waits for it.
func (r *relay) connected(s *relaySocket, dst netip.AddrPort, sa []byte, o opened, nonblocking bool) verdict {
	switch {
	case errors.Is(o.err, switchboard.ErrLocal):
		return r.native(s, dst, sa)
	case o.err != nil:
		return fail(refusalOf(o.err), o.err)
	}
	defer o.flow.Close()
	s.setPeer(dst)
	if err := s.join(o.flow); err != nil {
		return fail(errnoOf(err), err)
	}
	r.table.connected(s, dst)
	if nonblocking {
		return fail(unix.EINPROGRESS, nil) // what every kernel says; it is writable already
	}
	return verdict{}
}

// refusalOf is what connect(2) says of the daemon's answer.
func refusalOf(err error) syscall.Errno {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return unix.ETIMEDOUT
	case errors.Is(err, context.Canceled):
		return unix.ENETDOWN
	}
	return errnoOf(err)
}

// connectLaptop connects a stream to this machine itself.
func (r *relay) connectLaptop(s *relaySocket, dst netip.AddrPort, sa []byte) verdict {
	if errno := s.begin(); errno != 0 {
		return fail(errno, nil)
	}
	defer s.end()
	return r.native(s, dst, sa)
}

// native connects a stream as it is. It is let go of as soon as it stands: our
// duplicate must not outlive the program's.
func (r *relay) native(s *relaySocket, dst netip.AddrPort, sa []byte) verdict {
	err := connectRaw(s.fd, sa)
	switch {
	case err == nil:
		r.table.drop(s)
		return verdict{}
	case err != unix.EINPROGRESS:
		return fail(errnoOf(err), nil)
	}
	if stateOf(s.fd) == tcpEstablished {
		r.table.drop(s)
		return fail(unix.EINPROGRESS, nil)
	}
	r.table.keep(s)
	r.wg.Go(func() { // a listener with a full queue; ends with the connect
		defer r.table.release(s)
		if r.await(s.fd, unix.POLLOUT, connectTimeout) && stateOf(s.fd) == tcpEstablished {
			r.table.drop(s)
		}
	})
	return fail(unix.EINPROGRESS, nil)
}

// await waits until the descriptor is ready, reports false if it is not within
// limit or before the relay closes.
func (r *relay) await(fd int, events int16, limit time.Duration) bool {
	for end := time.Now().Add(limit); ; {
		left := min(time.Until(end), aliveInterval)
		if left <= 0 || r.ctx.Err() != nil {
			return false
		}
		if poll(fd, events, left) {
			return true
		}
	}
}

// poll waits for one descriptor.
func poll(fd int, events int16, limit time.Duration) bool {
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
	tcpEstablished = 1
	tcpClose       = 7
)

func stateOf(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return -1
	}
	return int(info.State)
}

// loopback returns the loopback address that the socket can reach: 127.0.0.1, but
// for one that is bound to IPv6 alone.
func (s *relaySocket) loopback() netip.Addr {
	v4 := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if s.domain == unix.AF_INET {
		return v4
	}
	if a := nameOf(s.fd).Addr(); a.Is6() && !a.IsUnspecified() {
		return netip.IPv6Loopback()
	}
	only, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	if err == nil && only != 0 && unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0) != nil {
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

// listenLoop listens on a port of the loopback address that the socket reaches.
func (s *relaySocket) listenLoop(backlog int, shared bool) (fd int, at netip.AddrPort, err error) {
	a := s.loopback()
	fd, err = unix.Socket(domainOf(a), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, at, os.NewSyscallError("socket", err)
	}
	if shared {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddrOf(domainOf(a), netip.AddrPortFrom(a, 0)))
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, at, fmt.Errorf("listen on loopback: %w", err)
	}
	// A deferred connect would wait for the program's first byte.
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 0)
	return fd, nameOf(fd), nil
}

// join connects the socket to a far end of its own and hands that to the daemon.
// The listener is there for microseconds; whoever else connects to it is hung up
// on, because only one socket can have the program's local address.
func (s *relaySocket) join(f *switchboard.Flow) error {
	ln, at, err := s.listenLoop(8, false)
	if err != nil {
		return err
	}
	defer unix.Close(ln)
	if err := unix.Connect(s.fd, sockaddrOf(s.domain, at)); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect to far end: %w", err)
	}
	fd, err := acceptFrom(ln, nameOf(s.fd))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if stateOf(s.fd) != tcpEstablished || peerOf(s.fd) != at {
		return fmt.Errorf("connect to far end: %w", unix.ECONNABORTED)
	}
	return f.Attach(fd)
}

// acceptFrom accepts the connection of the socket at from.
func acceptFrom(ln int, from netip.AddrPort) (int, error) {
	for end := time.Now().Add(loopTimeout); ; {
		if left := time.Until(end); left <= 0 || !poll(ln, unix.POLLIN, left) {
			return -1, fmt.Errorf("accept far end: %w", unix.ECONNABORTED)
		}
		fd, sa, err := unix.Accept4(ln, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == nil && addrPortOf(sa) == from:
			return fd, nil
		case err == nil:
			unix.Close(fd) // a stranger
		case err != unix.EAGAIN && err != unix.EINTR && err != unix.ECONNABORTED:
			return -1, os.NewSyscallError("accept", err)
		}
	}
}

// parking keeps a socket in the state of a connect that nobody has answered: it
// sends its SYNs to a listener whose queue is full. The queue holds one
// connection of our own and takes no other.
type parking struct {
	at     netip.AddrPort
	ln     int // -1 once closed
	filler int
	hold   int // keeps the port while nothing listens on it; -1 = none
}

// park lets the socket connect to where no answer comes from.
func park(s *relaySocket) (_ *parking, err error) {
	p := &parking{filler: -1, hold: -1}
	if p.ln, p.at, err = s.listenLoop(0, true); err != nil {
		return nil, err
	}
	if err = p.fill(); err == nil {
		if err = unix.Connect(s.fd, sockaddrOf(s.domain, p.at)); err == unix.EINPROGRESS {
			return p, nil
		}
		err = errors.Join(fmt.Errorf("park connect: %w", unix.EIO), err)
	}
	p.close()
	return nil, err
}

// fill makes the listener's queue full.
func (p *parking) fill() error {
	fd, err := unix.Socket(domainOf(p.at.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	p.filler = fd
	err = unix.Connect(fd, sockaddrOf(domainOf(p.at.Addr()), p.at))
	if err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("fill queue: %w", err)
	}
	if !poll(p.ln, unix.POLLIN, loopTimeout) { // a stranger's connection does as well
		return fmt.Errorf("fill queue: %w", unix.ETIMEDOUT)
	}
	return nil
}

func (p *parking) close() {
	for _, fd := range []*int{&p.ln, &p.filler, &p.hold} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// bound returns a socket with the parking's address.
func (p *parking) bound() (int, error) {
	domain := domainOf(p.at.Addr())
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(fd, sockaddrOf(domain, p.at))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind far end: %w", err)
	}
	return fd, nil
}

// unpark lets the socket know the daemon's late answer.
func (r *relay) unpark(s *relaySocket, dst netip.AddrPort, p *parking, o opened) {
	err := o.err
	if err == nil {
		defer o.flow.Close()
		s.setPeer(dst)
		if err = p.meet(s, o.flow); err == nil {
			r.table.connected(s, dst)
			return
		}
	}
	r.sup.logger.Debug("late connect fails", "dst", dst.String(), "err", err)
	p.refuse(r, s, refusalOf(err))
}

// meet connects to the socket from where it is trying to connect to. Both ends
// have sent their SYN then, which TCP takes for a connection (RFC 9293, 3.5).
func (p *parking) meet(s *relaySocket, f *switchboard.Flow) error {
	fd, err := p.bound()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	local := nameOf(s.fd)
	err = unix.Connect(fd, sockaddrOf(domainOf(p.at.Addr()), local))
	if err == unix.EINPROGRESS {
		if poll(fd, unix.POLLOUT, loopTimeout) {
			err = nil
		}
	}
	// Only one socket can have both addresses, so if ours stands it is this one's.
	if err != nil || peerOf(s.fd) != p.at || stateOf(s.fd) != tcpEstablished || peerOf(fd) != local {
		return fmt.Errorf("meet late connect: %w", errors.Join(unix.ECONNABORTED, err))
	}
	return f.Attach(fd)
}

// refuse lets the connect fail: by a reset where it was refused, else by the
// timeout of the program's kernel, which is as near as a socket can be told.
func (p *parking) refuse(r *relay, s *relaySocket, errno syscall.Errno) {
	if errno == unix.ECONNREFUSED {
		if hold, err := p.bound(); err == nil {
			p.hold = hold // so that nobody else can listen there
			unix.Close(p.ln)
			p.ln = -1
			r.await(s.fd, unix.POLLOUT, connectTimeout)
			return
		}
	}
	old, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT)
	if err == nil && unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1) == nil {
		r.await(s.fd, unix.POLLOUT, connectTimeout)
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, old)
	}
}
