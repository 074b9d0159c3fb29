package supervisor

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/flow"
)

// aliveInterval is how often a wait looks whether the caller still waits.
const aliveInterval = time.Second

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
	nonblocking, limit := s.near().Waits()
	ctx, cancel := context.WithTimeout(r.ctx, farend.ConnectTimeout)
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
			p, err := farend.Park(s.near())
			if err != nil {
				r.sup.logger.Debug("connect goes on in the call", "err", err)
				continue
			}
			parked = true
			r.table.keep(s)
			r.wg.Go(func() { // ends with ctx at the latest
				defer r.table.release(s)
				defer s.end()
				defer p.Close()
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
	case farend.State(s.fd) != farend.Closed:
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
	if err := s.near().Join(o.flow.Attach); err != nil {
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
	if farend.State(s.fd) == farend.Established {
		r.table.drop(s)
		return fail(unix.EINPROGRESS, nil)
	}
	r.table.keep(s)
	r.wg.Go(func() { // a listener with a full queue; ends with the connect
		defer r.table.release(s)
		if farend.Await(r.ctx, s.fd, unix.POLLOUT, farend.ConnectTimeout) && farend.State(s.fd) == farend.Established {
			r.table.drop(s)
		}
	})
	return fail(unix.EINPROGRESS, nil)
}

// unpark lets the socket know the daemon's late answer.
func (r *relay) unpark(s *relaySocket, dst netip.AddrPort, p *farend.Parking, o opened) {
	err := o.err
	if err == nil {
		defer o.flow.Close()
		s.setPeer(dst)
		if err = p.Meet(s.near(), o.flow.Attach); err == nil {
			r.table.connected(s, dst)
			return
		}
	}
	r.sup.logger.Debug("late connect fails", "dst", dst.String(), "err", err)
	p.Refuse(r.ctx, s.near(), refusalOf(err))
}
