package agent

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/flow"
)

// udpIdle closes a program's socket in the pod after so long without a
// datagram in either direction.
const udpIdle = 120 * time.Second

// maxDatagram is the largest UDP payload over IPv4, in bytes.
const maxDatagram = 65507

// forwardUDP runs in the stack's delivery path.
func (s *session) forwardUDP(f flow.Flow, payload []byte) {
	c := s.agent.counters
	reason := s.agent.cfg.Policy.Refuses(f.Dst)
	if f.Dst.Addr() == wire.LoopbackAddr {
		reason = "pod's loopback" // its TCP ports alone may be allowed
	}
	if reason != "" {
		s.deny(f, reason)
		s.unreachable(f, syscall.EACCES)
		return
	}
	e, err := s.udp.get(f.Src, func() (Datagrams, error) {
		// Without names nothing that is open already would be of use for long.
		if !s.agent.cfg.Policy.isNameserver(f.Dst) && s.agent.memory.short() {
			return nil, errNoMemory
		}
		return s.agent.cfg.Network.ListenUDP(f.Dst.Addr())
	}, s.startUDP)
	if err != nil {
		switch {
		case errors.Is(err, errNoMemory):
			c.drop(noMemory)
			s.unreachable(f, syscall.ECONNREFUSED)
		case !errors.Is(err, net.ErrClosed):
			c.drop("no UDP socket")
			s.agent.log.Warn("udp socket", "flow", f.String(), "err", err)
		}
		return
	}
	if s.sendNow(e, f, payload) {
		return
	}
	if !e.enqueue(outbound{dst: f.Dst, payload: slices.Clone(payload)}) {
		c.drop("UDP socket's queue full")
	}
}

// sendNow sends a datagram from the delivery path and reports whether it did,
// or failed for good: to wake e's goroutine up takes longer than all else that
// a datagram needs here. Behind what is queued it has to wait.
func (s *session) sendNow(e *natEntry[Datagrams], f flow.Flow, payload []byte) bool {
	socket, ok := e.socket.(interface {
		TrySend(payload []byte, dst netip.AddrPort) (sent bool, err error)
	})
	if !ok || e.queued.Load() > 0 {
		return false
	}
	sent, err := socket.TrySend(payload, f.Dst)
	if !sent && err == nil {
		return false
	}
	e.touch()
	s.sentUDP(f, err)
	return true
}

var errNoMemory = errors.New(noMemory)

// startUDP starts the two goroutines of e.
func (s *session) startUDP(e *natEntry[Datagrams]) {
	s.agent.counters.udpSockets.Add(1)
	s.wg.Go(func() {
		defer s.agent.counters.udpSockets.Add(-1)
		defer s.udp.remove(e)
		e.sendAll(udpIdle, func(out outbound) { s.sendUDP(e, out) })
	})
	s.wg.Go(func() {
		defer s.udp.remove(e)
		s.receiveUDP(e)
	})
}

func (s *session) sendUDP(e *natEntry[Datagrams], out outbound) {
	s.sentUDP(flow.Flow{Proto: flow.UDP, Src: e.program, Dst: out.dst}, e.socket.WriteTo(out.payload, out.dst))
}

// sentUDP counts a datagram of f that was sent, or tells the program why not.
func (s *session) sentUDP(f flow.Flow, err error) {
	switch {
	case err == nil:
		s.agent.counters.udpSent.Add(1)
	case !errors.Is(err, net.ErrClosed):
		s.unreachable(f, err)
	}
}

// datagramBuffers are lent for one datagram each: most sockets wait.
var datagramBuffers = sync.Pool{New: func() any { b := make([]byte, maxDatagram); return &b }}

// receiveUDP passes datagrams and ICMP errors on to the program until the socket
// is closed. Datagrams of strangers pass too; the client drops what answers no
// flow of its own.
func (s *session) receiveUDP(e *natEntry[Datagrams]) {
	for {
		if w, ok := e.socket.(interface{ WaitReadable() error }); ok && w.WaitReadable() != nil {
			return
		}
		buf := datagramBuffers.Get().(*[]byte)
		open := s.receiveDatagram(e, *buf)
		datagramBuffers.Put(buf)
		if !open {
			return
		}
	}
}

// receiveDatagram reports whether there may be another one.
func (s *session) receiveDatagram(e *natEntry[Datagrams], buf []byte) bool {
	n, src, err := e.socket.ReadFrom(buf)
	var un *Unreachable
	switch {
	case err == nil:
		e.touch()
		s.agent.counters.udpReceived.Add(1)
		if err := s.stack.SendUDP(src, e.program, buf[:n]); err != nil {
			s.agent.counters.drop("UDP reply")
		}
	case errors.As(err, &un):
		s.unreachable(flow.Flow{Proto: flow.UDP, Src: e.program, Dst: un.Dst}, un.Err)
	case errors.Is(err, net.ErrClosed):
		return false
	default:
		s.agent.log.Warn("udp receive", "src", e.program.String(), "err", err)
		return false
	}
	return true
}

// unreachable tells the program that f's datagram did not arrive.
func (s *session) unreachable(f flow.Flow, err error) {
	if err := s.stack.SendUnreachable(f, err); err != nil {
		s.agent.counters.drop("ICMP error")
	}
}
