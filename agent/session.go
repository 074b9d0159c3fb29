package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/wg"
)

// session is one client's tunnel: link, WireGuard device and network stack,
// and the flows that leave through it.
type session struct {
	id     [16]byte
	agent  *Agent
	record *record
	tunnel *wg.Tunnel
	stack  *netstack.Stack
	udp    *natTable[Datagrams]
	echo   *natTable[Echoes]
	direct directs

	ctx    context.Context // alive until close
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of the session
	once   sync.Once
}

// newSession builds a session without a carrier.
func (a *Agent) newSession(id [16]byte) (_ *session, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{id: id, agent: a, record: a.newRecord(id), ctx: ctx, cancel: cancel}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.stack, err = netstack.New(netstack.Config{
		Name:        "agent",
		MTU:         wire.MTU,
		Addrs:       []netip.Addr{wire.AgentAddr},
		Transparent: true,
		IPv6:        slices.ContainsFunc(a.addrs, netip.Addr.Is6),
		Patient:     true,
		Buffers:     a.memory.buffers(),
		Yields:      isCapture,
		Logger:      a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("make network stack: %w", err)
	}
	s.udp = newNATTable[Datagrams](a.cfg.MaxFlows)
	s.echo = newNATTable[Echoes](maxEchoSockets)
	s.stack.ForwardTCP(maxDialing, s.forwardTCP)
	s.stack.ForwardUDP(s.forwardUDP)
	s.stack.ForwardEcho(s.forwardEcho)

	s.tunnel, err = wg.NewTunnel(wg.TunnelConfig{
		Private: a.private,
		Peer:    a.cfg.ClientKey,
		MTU:     wire.MTU,
		Packets: &guardedPackets{Stack: s.stack, session: a.addrs, counters: a.counters},
		Logger:  a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("make tunnel: %w", err)
	}
	s.wg.Go(func() {
		// Without a carrier for the grace time the flows are worth nothing
		// more: the session ends, the agent stays for the next one.
		if err := s.tunnel.Run(ctx); err != nil {
			s.end(err.Error())
		}
		s.cancel()
		s.sweep()
	})
	if err := s.serveControl(); err != nil {
		return nil, fmt.Errorf("serve control API: %w", err)
	}
	if err := s.serveCaptures(); err != nil {
		return nil, fmt.Errorf("serve captures: %w", err)
	}
	return s, nil
}

// ended reports whether the session can take no carrier any more.
func (s *session) ended() bool { return s.ctx.Err() != nil }

// sweep resets every flow once the session's context has ended.
func (s *session) sweep() {
	s.udp.close()
	s.echo.close()
}

// leave tells the client that the agent ends. A port-forward may keep it from seeing
// that for seconds.
func (s *session) leave() {
	ctx, cancel := context.WithTimeout(s.ctx, s.agent.cfg.Farewell)
	defer cancel()
	s.tunnel.Leave(ctx)
}

// close ends the session and returns when its goroutines have ended.
func (s *session) close() {
	s.once.Do(func() {
		s.cancel()
		s.direct.settle()
		if s.tunnel != nil {
			s.tunnel.Close()
		}
		if s.stack != nil {
			s.stack.Close()
		}
		if s.udp != nil {
			s.sweep()
		}
		s.wg.Wait()
	})
}

// guardedPackets lets only packets of the client into the stack: from the
// session's addresses to anywhere but the agent itself, and from the client's
// own stack.
type guardedPackets struct {
	*netstack.Stack // what leaves it
	session         []netip.Addr
	counters        *counters
}

func (p *guardedPackets) Write(bufs [][]byte, offset int) (int, error) {
	for _, buf := range bufs {
		pkt := buf[offset:]
		if reason := p.refuses(pkt); reason != "" {
			p.counters.drop(reason)
			continue
		}
		p.Deliver(pkt)
	}
	return len(bufs), nil
}

func (p *guardedPackets) refuses(pkt []byte) string {
	src, dst, ok := endpoints(pkt)
	switch {
	case !ok:
		return "malformed packet"
	case src == wire.ClientAddr:
		return ""
	case !slices.Contains(p.session, src):
		return "foreign source address"
	case dst == wire.AgentAddr, dst == wire.LoopbackAddr:
		return "control address from a program"
	}
	return ""
}

func (p *guardedPackets) BatchSize() int { return packetBatch }

// packetBatch is how many packets cross between device and stack at once.
const packetBatch = 16

// endpoints returns the addresses in the header of an IP packet.
func endpoints(pkt []byte) (src, dst netip.Addr, ok bool) {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20])), true
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40])), true
	}
	return netip.Addr{}, netip.Addr{}, false
}
