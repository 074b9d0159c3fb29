package netstack

import (
	"io"
	"net"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Byte budgets of a link's outbound queue, per lane. A packet counts with its
// size on the wire.
const (
	dataBudget     = 512 << 10
	reserveBudget  = 64 << 10
	againBudget    = maxBuffer
	datagramBudget = 256 << 10
)

// The budget of retransmissions is a conn's whole window: that is lost with a
// carrier. What is dropped here waits for another timeout, which is at its
// longest by then. Queued retransmissions share their bytes with the conn's
// send buffer, so the budget costs little memory.

// smallPacket is the size up to which a TCP segment may use the reserve: pure
// ACKs, SYN, FIN, RST, keystrokes.
const smallPacket = 128

// A lane is one of the budgets that packets on their way out are charged to.
type lane uint8

const (
	laneData     lane = iota // TCP segments with data: wait for room
	laneReserve              // small TCP segments
	laneAgain                // retransmitted TCP segments: dropped for want of room
	laneDatagram             // UDP, ICMP, fragments: dropped for want of room
	lanes
)

var laneBudget = [lanes]int{dataBudget, reserveBudget, againBudget, datagramBudget}

// An outbound is a packet on its way out. The link holds a reference to it.
type outbound struct {
	pkt  *stack.PacketBuffer
	size int
	lane lane
}

// A waiting is a sender that waits in WritePackets until its packet is queued.
type waiting struct {
	out    outbound
	sender *sender       // nil if unknown
	done   chan struct{} // closed when out was queued or dropped
	err    tcpip.Error   // valid after done
}

// A link is the gVisor side of the stack's packet pipe.
//
// Invariant: nothing that gVisor does inside DeliverNetworkPacket may wait
// here, or two peers that both wait for room would wait for each other. Inline
// it sends only resets and ICMP, which are laneReserve and laneDatagram; TCP
// data is sent by gVisor's own goroutines and by callers of Write. A segment
// waits with its endpoint locked, so packets of one flow never overtake each
// other.
type link struct {
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	mtu        atomic.Uint32

	mu       sync.Mutex
	readable sync.Cond // queue is not empty, or closed
	queue    []outbound
	head     int // queue[:head] is read
	used     [lanes]int
	waiters  []*waiting
	senders  map[flow.Flow]*sender
	closed   bool
	dropped  [lanes]uint64
	waits    uint64
	packets  uint64
	bytes    uint64
}

var _ stack.LinkEndpoint = (*link)(nil)

func newLink(mtu int) *link {
	l := &link{senders: make(map[flow.Flow]*sender)}
	l.readable.L = &l.mu
	l.mtu.Store(uint32(mtu))
	return l
}

// WritePackets implements stack.LinkWriter.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if err := l.write(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

func (l *link) write(pkt *stack.PacketBuffer) tcpip.Error {
	out := outbound{pkt: pkt, size: pkt.Size(), lane: laneDatagram}
	var f flow.Flow // of data
	payload := 0
	if pkt.TransportProtocolNumber == header.TCPProtocolNumber {
		out.lane = laneReserve
		if payload = pkt.Data().Size(); payload > 0 {
			f = flowOf(pkt)
		}
	}

	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return &tcpip.ErrClosedForSend{}
	}
	var from *sender
	mayWait := out.lane == laneReserve && payload > 0
	if mayWait {
		from = l.senders[f]
		if from != nil && from.again(pkt.TransportHeader().Slice(), payload) {
			out.lane, mayWait = laneAgain, false
		} else if out.size > smallPacket || !l.roomLocked(out) {
			out.lane = laneData
		}
	}
	// Data does not pass data that waits already.
	room := l.roomLocked(out) && (out.lane != laneData || len(l.waiters) == 0)
	if room || from != nil && from.hurried > 0 {
		l.pushLocked(out)
		l.mu.Unlock()
		return nil
	}
	if !mayWait {
		l.dropped[out.lane]++
		l.mu.Unlock()
		return &tcpip.ErrNoBufferSpace{}
	}
	w := &waiting{out: out, sender: from, done: make(chan struct{})}
	l.waiters = append(l.waiters, w)
	l.waits++
	l.mu.Unlock()
	<-w.done
	return w.err
}

// roomLocked reports whether out fits its lane. A packet bigger than the whole
// budget fits an empty lane.
func (l *link) roomLocked(out outbound) bool {
	used := l.used[out.lane]
	return used == 0 || used+out.size <= laneBudget[out.lane]
}

func (l *link) pushLocked(out outbound) {
	out.pkt.IncRef()
	if l.head > 0 && len(l.queue) == cap(l.queue) {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queue = append(l.queue, out)
	l.used[out.lane] += out.size
	l.readable.Signal()
}

// grantLocked queues the packets of waiters, first come first served, as far
// as there is room.
func (l *link) grantLocked() {
	n := 0
	for n < len(l.waiters) && l.roomLocked(l.waiters[n].out) {
		l.pushLocked(l.waiters[n].out)
		close(l.waiters[n].done)
		n++
	}
	l.dropWaitersLocked(n)
}

// dropWaitersLocked forgets the first n waiters, which are done.
func (l *link) dropWaitersLocked(n int) {
	if n == 0 {
		return
	}
	k := copy(l.waiters, l.waiters[n:])
	clear(l.waiters[k:])
	l.waiters = l.waiters[:k]
}

// readPackets is Stack.ReadPackets.
func (l *link) readPackets(bufs [][]byte, sizes []int, offset int) (int, error) {
	if len(bufs) == 0 || len(sizes) < len(bufs) {
		return 0, io.ErrShortBuffer
	}
	var batch [32]outbound
	outs := batch[:min(len(batch), len(bufs))]

	l.mu.Lock()
	for l.head == len(l.queue) && !l.closed {
		l.readable.Wait()
	}
	if l.closed {
		l.mu.Unlock()
		return 0, net.ErrClosed
	}
	n := copy(outs, l.queue[l.head:])
	clear(l.queue[l.head : l.head+n])
	if l.head += n; l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
	for _, out := range outs[:n] {
		l.used[out.lane] -= out.size
		l.packets++
		l.bytes += uint64(out.size)
	}
	l.grantLocked()
	l.mu.Unlock()

	var err error
	for i, out := range outs[:n] {
		if offset > len(bufs[i]) || len(bufs[i])-offset < out.size {
			sizes[i], err = 0, io.ErrShortBuffer
		} else {
			sizes[i] = copyPacket(bufs[i][offset:], out.pkt)
		}
		out.pkt.DecRef()
	}
	return n, err
}

// copyPacket copies pkt to b, which is long enough.
func copyPacket(b []byte, pkt *stack.PacketBuffer) int {
	views, skip := pkt.AsViewList()
	n := 0
	for v := views.Front(); v != nil; v = v.Next() {
		s := v.AsSlice()
		if skip >= len(s) {
			skip -= len(s)
			continue
		}
		n += copy(b[n:], s[skip:])
		skip = 0
	}
	return n
}

// close fails all waiting and later calls and drops what is queued.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	queue, waiters := l.queue[l.head:], l.waiters
	l.queue, l.head, l.waiters = nil, 0, nil
	l.readable.Broadcast()
	l.mu.Unlock()

	for _, out := range queue {
		out.pkt.DecRef()
	}
	for _, w := range waiters {
		w.err = &tcpip.ErrClosedForSend{}
		close(w.done)
	}
}

// deliver hands one packet from outside to gVisor.
func (l *link) deliver(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if d := l.dispatcher.Load(); d != nil {
		(*d).DeliverNetworkPacket(proto, pkt)
	}
}

// MTU implements stack.NetworkLinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu.Load() }

// SetMTU implements stack.NetworkLinkEndpoint.
func (l *link) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// Capabilities implements stack.NetworkLinkEndpoint. Received checksums need
// no check: the AEAD of the tunnel, or the kernel of the TUN, has vouched for
// the bytes. Sent ones are computed, for what leaves may end in a TUN.
func (*link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// Attach implements stack.NetworkLinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// Close implements stack.NetworkLinkEndpoint; Stack.Close closes the link.
func (*link) Close() {}

// Wait implements stack.NetworkLinkEndpoint.
func (*link) Wait() {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (*link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (*link) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.NetworkLinkEndpoint.
func (*link) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (*link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.NetworkLinkEndpoint.
func (*link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (*link) ParseHeader(*stack.PacketBuffer) bool { return true }

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (*link) SetOnCloseAction(func()) {}
