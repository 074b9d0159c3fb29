package netstack

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Sizes of a conn's buffers, in bytes. gVisor offers half of the free receive
// buffer as window.
const (
	minBuffer     = 4 << 10
	defaultBuffer = 1 << 20
	// maxBuffer bounds what a conn has sent and may have to send again, and what
	// it has received and nobody has read.
	maxBuffer = 4 << 20
	// Where conns share a budget, each begins with its part of it, within these.
	maxPart = 256 << 10
	minPart = 8 << 10
)

// shares divides among the conns of a stack what they may buffer. What each of
// them begins with is the smaller the more conns there are, in powers of two. A
// conn that uses all it has is granted more, twice as much each time, as long as
// that is no more than half of what is left to grant. So a transfer is fast
// among many conns that rest, and a thousand conns whose peers do not read hold
// a few times the budget, not a thousand times a conn's maximum.
type shares struct {
	gv     *stack.Stack
	budget int // in each direction; 0 = each conn has gVisor's sizes, for itself

	send, receive grants

	mu    sync.Mutex
	conns map[*TCPConn]struct{}
	part  int // what a new conn begins with
}

// grants is what is left to grant in one direction, in bytes.
type grants struct{ left atomic.Int64 }

// take grants n bytes, or nothing.
func (g *grants) take(n int) bool {
	for {
		left := g.left.Load()
		if int64(n) > left/2 {
			return false
		}
		if g.left.CompareAndSwap(left, left-int64(n)) {
			return true
		}
	}
}

func newShares(gv *stack.Stack, budget int) *shares {
	s := &shares{gv: gv, budget: budget, conns: make(map[*TCPConn]struct{}), part: partOf(budget, 0)}
	s.send.left.Store(int64(budget) * 3 / 2)
	s.receive.left.Store(int64(budget) * 3 / 2)
	return s
}

// partOf returns what each of n conns begins with.
func partOf(budget, n int) int {
	room := 1 << bits.Len(uint(max(n-1, 0))) // n, rounded up
	return min(max(budget/room, minPart), maxPart)
}

// configure sets the sizes of the buffers of conns to come.
func (s *shares) configure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.configureLocked()
}

func (s *shares) configureLocked() error {
	size, limit := defaultBuffer, maxBuffer
	if s.budget != 0 {
		size, limit = s.part, s.part // gVisor tunes nothing, grow does
	}
	moderate := tcpip.TCPModerateReceiveBufferOption(s.budget == 0)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: size, Max: limit}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: size, Max: limit}
	for _, opt := range []tcpip.SettableTransportProtocolOption{&moderate, &receive, &send} {
		if err := s.gv.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return errnoOf(err)
		}
	}
	return nil
}

// begin returns the size of the receive buffer of one of the conns that are about
// to be.
func (s *shares) begin(about int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budget == 0 {
		return defaultBuffer
	}
	return partOf(s.budget, len(s.conns)+about)
}

// add counts c in, which has sent nothing yet.
func (s *shares) add(c *TCPConn) {
	if s.budget == 0 {
		return
	}
	// Who sets a size aloud ends gVisor's own tuning, which would undo grants.
	c.ep.SocketOptions().SetSendBufferSize(minPart, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	c.receiveSize.Store(c.ep.SocketOptions().GetReceiveBufferSize()) // what begin said
	s.divideLocked()
	c.limitSend(s.part)
}

// remove counts c out: it buffers nothing any more.
func (s *shares) remove(c *TCPConn) {
	if s.budget == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	s.send.left.Add(c.sendGrant.Swap(0))
	s.receive.left.Add(c.receiveGrant.Swap(0))
	s.divideLocked()
}

// divideLocked makes the part of each fit the number of conns. What a conn has
// to send is bounded anew; a receive buffer stays, for its window has been
// promised. No lock of an endpoint is taken, which a sender that waits in the
// link may hold.
func (s *shares) divideLocked() {
	part := partOf(s.budget, len(s.conns))
	if part == s.part {
		return
	}
	s.part = part
	if err := s.configureLocked(); err != nil {
		panic("buffer sizes: " + err.Error()) // gVisor knows the options
	}
	for c := range s.conns {
		c.limitSend(part)
	}
}

// limitSend bounds what c may have to send to part and what it was granted. It
// wakes a Write, which may find room now: gVisor wakes one only when half of a
// full buffer is free again.
func (c *TCPConn) limitSend(part int) {
	c.sendPart.Store(int64(part))
	c.ep.SocketOptions().SetSendBufferSize(int64(part)+c.sendGrant.Load(), false /* notify: it would lock the endpoint */)
	select {
	case c.writable <- struct{}{}:
	default:
	}
}

// growSend lets c have more to send, for a Write that found no room, and reports
// whether it may. The caller holds c.writeMu.
func (c *TCPConn) growSend() bool {
	s := c.stack.shares
	size := int(c.sendPart.Load() + c.sendGrant.Load())
	if s.budget == 0 || 2*size > maxBuffer || !s.send.take(size) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		s.send.left.Add(int64(size))
		return false
	}
	c.sendGrant.Add(int64(size))
	c.ep.SocketOptions().SetSendBufferSize(c.sendPart.Load()+c.sendGrant.Load(), false)
	return true
}

// growReceive widens c's window when a window's worth was read: half of what its
// buffer holds, so about once per round trip. n is what was read now; the caller
// holds c.readMu.
func (c *TCPConn) growReceive(n int) {
	s := c.stack.shares
	if s.budget == 0 {
		return
	}
	size := int(c.receiveSize.Load())
	if c.readSince += n; c.readSince < size/2 {
		return
	}
	c.readSince = 0
	if 2*size > maxBuffer || !s.receive.take(size) {
		return
	}
	s.mu.Lock()
	_, ok := s.conns[c]
	if ok {
		c.receiveGrant.Add(int64(size))
		c.receiveSize.Store(int64(2 * size))
	} else {
		s.receive.left.Add(int64(size))
	}
	s.mu.Unlock()
	if ok {
		c.ep.SocketOptions().SetReceiveBufferSize(int64(2*size), true)
	}
}
