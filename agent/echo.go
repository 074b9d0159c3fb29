package agent

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// maxEchoSockets bounds the programs that ping at once.
	maxEchoSockets = 64
	// echoIdle closes a program's ping socket after so long without an echo.
	echoIdle = 30 * time.Second
)

// forwardEcho runs in the stack's delivery path.
func (s *session) forwardEcho(req netstack.Echo) {
	c := s.agent.counters
	program := netip.AddrPortFrom(req.Src, req.ID)
	f := flow.Flow{Proto: echoProto(req.Dst), Src: program, Dst: netip.AddrPortFrom(req.Dst, req.ID)}
	if reason := s.agent.cfg.Policy.Refuses(netip.AddrPortFrom(req.Dst, 0)); reason != "" {
		s.deny(f, reason)
		s.unreachable(f, syscall.EACCES)
		return
	}
	e, err := s.echo.get(program, func() (Echoes, error) { return s.agent.cfg.Network.ListenEcho(req.Dst) }, func(e *natEntry[Echoes]) { s.startEcho(e, req) })
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			c.drop("no ping socket")
			s.unreachable(f, err)
		}
		return
	}
	if !e.enqueue(outbound{dst: f.Dst, seq: req.Seq, payload: slices.Clone(req.Payload)}) {
		c.drop("ping socket's queue full")
	}
}

// startEcho starts the two goroutines of e. first carries the identifier that
// the program used.
func (s *session) startEcho(e *natEntry[Echoes], first netstack.Echo) {
	s.wg.Go(func() {
		defer s.echo.remove(e)
		e.sendAll(echoIdle, func(out outbound) {
			err := e.socket.Request(out.dst.Addr(), out.seq, out.payload)
			switch {
			case err == nil:
				s.agent.counters.echoes.Add(1)
			case !errors.Is(err, net.ErrClosed):
				s.unreachable(flow.Flow{Proto: echoProto(out.dst.Addr()), Src: e.program, Dst: out.dst}, err)
			}
		})
	})
	s.wg.Go(func() {
		defer s.echo.remove(e)
		s.receiveEchoes(e, first.ID)
	})
}

func (s *session) receiveEchoes(e *natEntry[Echoes], id uint16) {
	buf := make([]byte, maxDatagram)
	for {
		n, src, seq, err := e.socket.Reply(buf)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.agent.log.Warn("echo receive", "src", e.program.String(), "err", err)
			}
			return
		}
		e.touch()
		reply := netstack.Echo{Src: e.program.Addr(), Dst: src, ID: id, Seq: seq, Payload: buf[:n]}
		if err := s.stack.SendEchoReply(reply); err != nil {
			s.agent.counters.drop("echo reply")
		}
	}
}

func echoProto(dst netip.Addr) flow.Proto {
	if dst.Is4() {
		return flow.ICMP
	}
	return flow.ICMPv6
}
