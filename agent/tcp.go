package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/relay"
)

const (
	// maxDialing bounds the connections being opened at once.
	maxDialing = 512
	// dialTimeout is a little more than Linux spends on SYN retries with the
	// default tcp_syn_retries of 6 (127 s): the program's own timeout comes first.
	dialTimeout = 130 * time.Second
	// flowIdle closes a connection without a byte for so long. The stack's
	// keep-alives find dead clients much earlier.
	flowIdle = 24 * time.Hour
	// halfClosed is never: a server may think for long about a request whose
	// sender has closed its half, as it may in the pod.
	halfClosed = -1
)

// noMemory is why a flow is refused before the agent's memory is used up: the
// application in the same pod must not feel it.
const noMemory = "no memory for another flow"

// forwardTCP opens the flow's connection in the pod first and completes the
// program's handshake after, so that connect() in the program fails as it
// would in the pod.
func (s *session) forwardTCP(req *netstack.TCPRequest) {
	f := req.Flow()
	c := s.agent.counters
	if reason := s.agent.cfg.Policy.Refuses(f.Dst); reason != "" {
		s.deny(f, reason)
		req.Reject(syscall.EACCES)
		return
	}
	if s.agent.memory.short() {
		c.drop(noMemory)
		req.Reject(syscall.ECONNREFUSED)
		return
	}
	if c.tcpFlows.Add(1) > int64(s.agent.cfg.MaxFlows) {
		c.tcpFlows.Add(-1)
		c.drop("too many TCP flows")
		req.Reject(syscall.ECONNREFUSED)
		return
	}
	defer c.tcpFlows.Add(-1)

	upstream, err := s.dial(f.Dst)
	if err != nil {
		c.tcpFailed.Add(1)
		s.agent.log.Debug("dial failed", "flow", f.String(), "err", err)
		req.Reject(err)
		return
	}
	c.tcpOpened.Add(1)
	conn, err := req.Accept()
	if err != nil {
		upstream.Close()
		s.agent.log.Debug("program gone before its connection stood", "flow", f.String(), "err", err)
		return
	}
	stats := relay.Copy(s.ctx, conn, upstream, relay.Options{Idle: flowIdle, HalfClosed: halfClosed})
	s.agent.log.Debug("flow ends", "flow", f.String(), "out", stats.AToB, "in", stats.BToA, "err", stats.Err)
}

func (s *session) dial(dst netip.AddrPort) (relay.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	if dst.Addr() == wire.LoopbackAddr {
		return s.dialLocalhost(ctx, dst.Port())
	}
	conn, err := s.agent.cfg.Network.DialTCP(ctx, dst)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", dst, err)
	}
	return conn, nil
}

// dialLocalhost connects to the pod's loopback, of either family.
func (s *session) dialLocalhost(ctx context.Context, port uint16) (relay.Conn, error) {
	conn, err := s.agent.cfg.Network.DialTCP(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	if errors.Is(err, syscall.ECONNREFUSED) {
		if c, err6 := s.agent.cfg.Network.DialTCP(ctx, netip.AddrPortFrom(netip.IPv6Loopback(), port)); err6 == nil {
			return c, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("dial localhost:%d: %w", port, err)
	}
	return conn, nil
}
