package supervisor

import (
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// maxFlowsPerSocket bounds the destinations of one datagram socket; the one
	// that was sent to longest ago makes room.
	maxFlowsPerSocket = 64
	// maxDatagramFlows bounds those of all sockets.
	maxDatagramFlows = 1024
)

// datagramFlow is what carries datagrams between a socket and one destination:
// a far end on the loopback device, connected to the socket, that the daemon has.
type datagramFlow struct {
	dst  netip.AddrPort
	far  netip.AddrPort // what the socket sends to, and hears from, for dst
	flow *switchboard.Flow
	fd   int // of a far end that the daemon has not got; -1 = none
	used time.Time
}

// datagramFlows are the flows of one socket. The zero value is ready to use.
type datagramFlows struct {
	relay *relay
	byDst map[netip.AddrPort]*datagramFlow
	byFar map[netip.AddrPort]*datagramFlow
}

func (d *datagramFlows) add(r *relay, f *datagramFlow) {
	if d.relay == nil {
		*d = datagramFlows{relay: r, byDst: map[netip.AddrPort]*datagramFlow{}, byFar: map[netip.AddrPort]*datagramFlow{}}
	}
	d.byDst[f.dst], d.byFar[f.far] = f, f
}

func (d *datagramFlows) remove(f *datagramFlow) {
	delete(d.byDst, f.dst)
	delete(d.byFar, f.far)
	f.flow.Close()
	if f.fd >= 0 {
		unix.Close(f.fd)
	}
	d.relay.datagrams.Add(-1)
}

// oldest returns the flow that was used longest ago, but not that to peer.
func (d *datagramFlows) oldest(peer netip.AddrPort) *datagramFlow {
	var out *datagramFlow
	for _, f := range d.byDst {
		if f.dst != peer && (out == nil || f.used.Before(out.used)) {
			out = f
		}
	}
	return out
}

func (d *datagramFlows) close() {
	for _, f := range d.byDst {
		d.remove(f)
	}
}

// connectUDP connects a datagram socket to the far end of a flow. Nothing is sent.
func (r *relay) connectUDP(s *relaySocket, dst netip.AddrPort, sa []byte) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, errno := r.flowLocked(s, dst, true)
	switch {
	case errno != 0:
		return fail(errno, nil)
	case f == nil: // the laptop's own
		if err := connectRaw(s.fd, sa); err != nil {
			return fail(errnoOf(err), nil)
		}
		s.peer = dst
		return verdict{}
	}
	if s.peer != dst { // else the far end's socket is connected already
		if err := unix.Connect(s.fd, farend.Sockaddr(s.domain, f.far)); err != nil {
			return fail(errnoOf(err), err)
		}
	}
	s.peer = dst
	return verdict{}
}

// flowLocked returns the flow of the socket to dst, which it opens if need be;
// nil if dst is the laptop's own. connect says that the socket connects to it.
func (r *relay) flowLocked(s *relaySocket, dst netip.AddrPort, connect bool) (*datagramFlow, syscall.Errno) {
	if f := s.flows.byDst[dst]; f != nil {
		f.used = time.Now()
		return f, 0
	}
	if len(s.flows.byDst) >= maxFlowsPerSocket {
		s.flows.remove(s.flows.oldest(s.peer))
	}
	if r.datagrams.Add(1) > maxDatagramFlows {
		// Sockets that programs have closed go first.
		if r.table.settle(1, 0); r.datagrams.Load() > maxDatagramFlows {
			r.datagrams.Add(-1)
			return nil, unix.ENOBUFS
		}
	}
	carried, err := r.far.Open(r.ctx, flow.UDP, dst)
	if err == switchboard.ErrLocal {
		r.datagrams.Add(-1)
		return nil, 0
	}
	if err != nil {
		r.datagrams.Add(-1)
		return nil, refusalOf(err)
	}
	f := &datagramFlow{dst: dst, flow: carried, fd: -1, used: time.Now()}
	if err := f.meet(s, connect); err != nil {
		r.datagrams.Add(-1)
		carried.Close()
		return nil, errnoOf(err)
	}
	s.flows.add(r, f)
	return f, 0
}

// meet makes the far end and hands it to the daemon.
func (f *datagramFlow) meet(s *relaySocket, connect bool) error {
	fd, at, err := s.near().Meet(connect)
	if err != nil {
		return err
	}
	f.far = at
	if connect {
		s.peer = f.dst
	}
	if f.dst.Port() == 0 {
		f.fd = fd // a look at the source address (getaddrinfo(3)): nothing will be sent
		return nil
	}
	defer unix.Close(fd)
	return f.flow.Attach(fd)
}

// real returns whom a datagram is from.
func (s *relaySocket) real(from netip.AddrPort) netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flows.byFar[from]; f != nil {
		f.used = time.Now()
		return f.dst
	}
	return from
}

// hasFlows reports whether what the socket receives may be from a far end.
func (s *relaySocket) hasFlows() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flows.byFar) > 0
}

// send sends one datagram of the program, to the far end of dst's flow.
func (r *relay) send(n *notification, s *relaySocket, dst netip.AddrPort, payload []byte, flags int) (int, syscall.Errno) {
	s.mu.Lock()
	f, errno := r.flowLocked(s, dst, false)
	s.mu.Unlock()
	to := dst
	switch {
	case errno != 0:
		return 0, errno
	case f != nil:
		to = f.far
	case !isLaptops(dst):
		return 0, unix.ENETUNREACH
	}
	for again := false; ; again = true {
		err := unix.Sendto(s.fd, payload, flags&unix.MSG_CONFIRM|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, farend.Sockaddr(s.domain, to))
		switch {
		case err == nil:
			return len(payload), 0
		case err == unix.EINTR:
		case err == unix.EAGAIN && flags&unix.MSG_DONTWAIT == 0 && !farend.Nonblocking(s.fd):
			if !r.awaitFor(n, s.fd, unix.POLLOUT, time.Time{}) {
				return 0, unix.EINTR
			}
		case err == unix.ECONNREFUSED && !again: // what an earlier datagram met
		default:
			return 0, errnoOf(err)
		}
	}
}

// awaitFor waits on behalf of a caller until the descriptor is ready, or false if
// the deadline passes, the caller ends or the relay closes.
func (r *relay) awaitFor(n *notification, fd int, events int16, deadline time.Time) bool {
	for r.ctx.Err() == nil && r.sup.alive(n) {
		left := aliveInterval
		if !deadline.IsZero() {
			if left = min(left, time.Until(deadline)); left <= 0 {
				return false
			}
		}
		if farend.Poll(fd, events, left) {
			return true
		}
	}
	return false
}
