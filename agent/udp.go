package agent

import (
	"errors"
	"net"
	"slices"
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
	e, err := s.udp.get(f.Src, func() (Datagrams, error) { return s.agent.cfg.Network.ListenUDP(f.Dst.Addr()) }, s.startUDP)
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			c.drop("no UDP socket")
			s.agent.log.Warn("udp socket", "flow", f.String(), "err", err)
		}
		return
	}
	if !e.enqueue(outbound{dst: f.Dst, payload: slices.Clone(payload)}) {
		c.drop("UDP socket's queue full")
	}
}

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
	err := e.socket.WriteTo(out.payload, out.dst)
	switch {
	case err == nil:
		s.agent.counters.udpSent.Add(1)
	case !errors.Is(err, net.ErrClosed):
		s.unreachable(flow.Flow{Proto: flow.UDP, Src: e.program, Dst: out.dst}, err)
	}
}

// receiveUDP passes datagrams and ICMP errors on to the program. Datagrams of
// strangers pass too; the client drops what answers no flow of its own.
func (s *session) receiveUDP(e *natEntry[Datagrams]) {
	buf := make([]byte, maxDatagram)
	for {
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
			return
		default:
			s.agent.log.Warn("udp receive", "src", e.program.String(), "err", err)
			return
		}
	}
}

// unreachable tells the program that f's datagram did not arrive.
func (s *session) unreachable(f flow.Flow, err error) {
	if err := s.stack.SendUnreachable(f, err); err != nil {
		s.agent.counters.drop("ICMP error")
	}
}
