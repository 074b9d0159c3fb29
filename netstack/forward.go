package netstack

import (
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/borrownet/borrownet/netstack/flow"
)

// A forwarder makes TCPRequests of SYNs.
type forwarder struct {
	make func(receive int) *tcp.Forwarder
	max  int

	mu sync.Mutex
	gv map[int]*tcp.Forwarder // by the size of their endpoints' receive buffers
	// requests holds the IP packet, without what follows the TCP header, of
	// each SYN that is being decided: ICMP errors quote it.
	requests map[stack.TransportEndpointID][]byte
}

// ForwardTCP calls h, in a goroutine of its own, for each SYN that matches no
// endpoint of the stack. At most maxInFlight requests are undecided at a time;
// SYNs beyond are dropped and counted, and come again. h must call Accept or
// Reject. Without ForwardTCP such SYNs are answered with RST.
func (s *Stack) ForwardTCP(maxInFlight int, h func(*TCPRequest)) {
	f := &forwarder{max: maxInFlight, requests: make(map[stack.TransportEndpointID][]byte), gv: make(map[int]*tcp.Forwarder)}
	f.make = func(receive int) *tcp.Forwarder {
		// gVisor has never more requests than f, which forgets them later.
		return tcp.NewForwarder(s.gv, receive, maxInFlight, func(r *tcp.ForwarderRequest) {
			h(&TCPRequest{stack: s, forwarder: f, gv: r, id: r.ID()})
		})
	}
	s.onTCP.Store(f)
}

// next returns gVisor's forwarder for a new request, whose endpoint gets a
// receive buffer of the size that s has for it. There are few sizes: powers of two.
func (f *forwarder) next(s *shares) *tcp.Forwarder {
	f.mu.Lock()
	defer f.mu.Unlock()
	receive := s.begin(len(f.requests))
	gv := f.gv[receive]
	if gv == nil {
		gv = f.make(receive)
		f.gv[receive] = gv
	}
	return gv
}

// handleTCP takes a segment that matches no endpoint.
func (s *Stack) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	f := s.onTCP.Load()
	if f == nil || s.isClosed() {
		return false
	}
	seg := header.TCP(pkt.TransportHeader().Slice())
	if len(seg) < header.TCPMinimumSize || seg.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false
	}
	if ip := pkt.Network(); header.IsV4MulticastAddress(ip.DestinationAddress()) || header.IsV6MulticastAddress(ip.DestinationAddress()) {
		return true
	}
	f.mu.Lock()
	_, known := f.requests[id]
	full := len(f.requests) >= f.max
	if !known && !full {
		f.requests[id] = quote(pkt)
	}
	f.mu.Unlock()
	switch {
	case known:
		s.counts.synDuplicates.Add(1)
		return true
	case full:
		s.counts.synDrops.Add(1)
		return true
	}
	if !f.next(s.shares).HandlePacket(id, pkt) {
		f.forget(id)
		return false
	}
	return true
}

// quote returns a copy of pkt's IP and transport headers.
func quote(pkt *stack.PacketBuffer) []byte {
	ip, transport := pkt.NetworkHeader().Slice(), pkt.TransportHeader().Slice()
	return append(append(make([]byte, 0, len(ip)+len(transport)), ip...), transport...)
}

func (f *forwarder) syn(id stack.TransportEndpointID) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[id]
}

func (f *forwarder) forget(id stack.TransportEndpointID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.requests, id)
}

func (f *forwarder) inFlight() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.requests))
}

// A TCPRequest is a SYN that waits for a decision: Accept or Reject, once.
type TCPRequest struct {
	stack     *Stack
	forwarder *forwarder
	gv        *tcp.ForwarderRequest
	id        stack.TransportEndpointID

	mu      sync.Mutex
	decided bool
}

// Flow returns the flow of the SYN: from the client to whom it wants.
func (r *TCPRequest) Flow() flow.Flow {
	return flow.Flow{
		Proto: flow.TCP,
		Src:   addrPortFrom(r.id.RemoteAddress, r.id.RemotePort),
		Dst:   addrPortFrom(r.id.LocalAddress, r.id.LocalPort),
	}
}

// decide reports whether the caller is the first to decide r.
func (r *TCPRequest) decide() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !r.decided
	r.decided = true
	return first
}

// complete forgets r, after the reset if there is one.
func (r *TCPRequest) complete(reset bool) {
	r.gv.Complete(reset)
	// Only now: a SYN that gVisor took for a duplicate would stay in requests.
	r.forwarder.forget(r.id)
}

// Accept completes the handshake, and waits for the client's part in it. The
// request is decided also if that fails.
func (r *TCPRequest) Accept() (*TCPConn, error) {
	f := r.Flow()
	c, err := r.accept(f)
	if err != nil {
		return nil, opError("accept", "tcp", tcpAddr(f.Src), tcpAddr(f.Dst), err)
	}
	return c, nil
}

func (r *TCPRequest) accept(f flow.Flow) (*TCPConn, error) {
	if !r.decide() {
		return nil, net.ErrClosed
	}
	s := r.stack
	if !s.join(&s.handshakes) {
		r.complete(false)
		return nil, net.ErrClosed
	}
	wq := new(waiter.Queue)
	ep, terr := r.gv.CreateEndpoint(wq)
	r.complete(false)
	s.handshakes.Done()
	if terr != nil {
		if s.isClosed() {
			return nil, net.ErrClosed
		}
		return nil, errnoOf(terr)
	}
	s.counts.accepted.Add(1)
	return s.newTCPConn(ep, wq, f.Dst, f.Src), nil
}

// Reject refuses the request so that the client's connect fails with err's
// errno: by a RST for ECONNREFUSED and everything that has no better answer,
// by an ICMP error for an unreachable host or net and for EACCES and EPERM,
// by silence for a timeout.
func (r *TCPRequest) Reject(err error) {
	if !r.decide() {
		return
	}
	r.stack.counts.rejected.Add(1)
	how := refusalFor(err)
	switch how {
	case refuse:
		r.complete(true)
		return
	case silence:
	default:
		f := r.Flow()
		if sendErr := r.stack.sendUnreachable(f, how, r.forwarder.syn(r.id)); sendErr != nil {
			r.stack.log.Debug("tell client why", "flow", f, "err", sendErr)
		}
	}
	r.complete(false)
}
