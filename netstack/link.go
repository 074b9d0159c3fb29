package netstack

import (
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/flow"
)

// Byte budgets of a link's outbound queue. A packet counts with its size on the
// wire.
const (
	dataBudget     = 512 << 10 // of a lane
	reserveBudget  = 64 << 10
	againBudget    = maxSendBuffer
	datagramBudget = 256 << 10
)

// The budget of retransmissions is a conn's whole window: that is lost with a
// carrier. What is dropped here waits for another timeout, which is at its
// longest by then. Queued retransmissions share their bytes with the conn's
// send buffer, so the budget costs little memory.

// smallPacket is the size up to which a TCP segment may use the reserve: pure
// ACKs, SYN, FIN, RST, keystrokes.
const smallPacket = 128

// A budget is what packets on their way out are charged to.
type budget uint8

const (
	budgetData     budget = iota // TCP segments with data of flows that send much: wait for room
	budgetExpress                // TCP segments with data of other flows: wait for room
	budgetReserve                // small TCP segments
	budgetAgain                  // retransmitted TCP segments: dropped for want of room
	budgetDatagram               // UDP, ICMP, fragments: dropped for want of room
	budgets
)

var budgetBytes = [budgets]int{dataBudget, dataBudget, reserveBudget, againBudget, datagramBudget}

// mayWait reports whether packets wait for room in b.
func (b budget) mayWait() bool { return b <= budgetExpress }

// An outbound is a packet on its way out. The link holds a reference to it.
type outbound struct {
	pkt    *stack.PacketBuffer
	size   int
	budget budget
}

// A waiting is a sender that waits in WritePackets until its packet is queued.
type waiting struct {
	out    outbound
	packet fairqueue.Packet
	sender *sender       // nil if unknown
	done   chan struct{} // closed when out was queued or dropped
	err    tcpip.Error   // valid after done
}

// A link is the gVisor side of the stack's packet pipe.
//
// Invariant: nothing that gVisor does inside DeliverNetworkPacket may wait
// here, or two peers that both wait for room would wait for each other. Inline
// it sends only resets and ICMP, which are budgetReserve and budgetDatagram; TCP
// data is sent by gVisor's own goroutines and by callers of Write. A segment
// waits with its endpoint locked, so packets of one flow never overtake each
// other.
type link struct {
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	mtu        atomic.Uint32

	mu       sync.Mutex
	readable [fairqueue.Lanes]sync.Cond // something can be popped from the lane, or closed
	queue    *fairqueue.Queue[outbound]
	used     [budgets]int
	waiters  [budgetExpress + 1][]*waiting // for each budget that packets wait for
	senders  map[flow.Flow]*sender
	closed   bool
	dropped  [budgets]uint64
	waits    uint64
	packets  uint64
	bytes    uint64
}

var _ stack.LinkEndpoint = (*link)(nil)

func newLink(mtu int) *link {
	l := &link{senders: make(map[flow.Flow]*sender), queue: fairqueue.New[outbound]()}
	for i := range l.readable {
		l.readable[i].L = &l.mu
	}
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
	out := outbound{pkt: pkt, size: pkt.Size(), budget: budgetDatagram}
	isTCP := pkt.TransportProtocolNumber == header.TCPProtocolNumber
	payload := 0
	if isTCP {
		out.budget = budgetReserve
		payload = pkt.Data().Size()
	}
	p := describe(pkt, out.size)

	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return &tcpip.ErrClosedForSend{}
	}
	var from *sender
	if payload > 0 && isTCP {
		from = l.senders[p.Flow]
		switch {
		case from != nil && from.again(pkt.TransportHeader().Slice(), payload):
			out.budget = budgetAgain
		case out.size <= smallPacket && l.roomLocked(out):
		case l.queue.Lane(p.Flow) == fairqueue.Bulk:
			out.budget = budgetData
		default:
			out.budget = budgetExpress
		}
	}
	// Data does not pass data that waits already.
	room := l.roomLocked(out) && (!out.budget.mayWait() || len(l.waiters[out.budget]) == 0)
	if room || from != nil && from.hurried > 0 {
		l.pushLocked(out, p)
		l.mu.Unlock()
		return nil
	}
	if !out.budget.mayWait() {
		l.dropped[out.budget]++
		l.mu.Unlock()
		return &tcpip.ErrNoBufferSpace{}
	}
	w := &waiting{out: out, packet: p, sender: from, done: make(chan struct{})}
	l.waiters[out.budget] = append(l.waiters[out.budget], w)
	l.waits++
	l.mu.Unlock()
	<-w.done
	return w.err
}

// describe says what the queue has to know of pkt.
func describe(pkt *stack.PacketBuffer, size int) fairqueue.Packet {
	p := fairqueue.Packet{Size: size}
	h := pkt.TransportHeader().Slice()
	switch {
	case pkt.TransportProtocolNumber == header.TCPProtocolNumber && len(h) >= header.TCPMinimumSize:
		p.Flow = flowOf(pkt, flow.TCP, header.TCP(h))
	case pkt.TransportProtocolNumber == header.UDPProtocolNumber && len(h) >= header.UDPMinimumSize:
		p.Flow = flowOf(pkt, flow.UDP, header.UDP(h))
	}
	return p
}

// roomLocked reports whether out fits its budget. A packet bigger than the
// whole budget fits an empty one.
func (l *link) roomLocked(out outbound) bool {
	used := l.used[out.budget]
	return used == 0 || used+out.size <= budgetBytes[out.budget]
}

func (l *link) pushLocked(out outbound, p fairqueue.Packet) {
	out.pkt.IncRef()
	l.used[out.budget] += out.size
	l.readable[l.queue.Push(out, p, time.Now())].Signal()
}

// grantLocked queues the packets of waiters, first come first served, as far
// as there is room.
func (l *link) grantLocked() {
	for b, waiters := range l.waiters {
		n := 0
		for n < len(waiters) && l.roomLocked(waiters[n].out) {
			l.pushLocked(waiters[n].out, waiters[n].packet)
			close(waiters[n].done)
			n++
		}
		if n > 0 {
			k := copy(waiters, waiters[n:])
			clear(waiters[k:])
			l.waiters[b] = waiters[:k]
		}
	}
}

// split is Stack.Split.
func (l *link) split(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.Split(on)
}

// arrived is Stack.Arrived.
func (l *link) arrived(lane fairqueue.Lane, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue.Arrived(lane, n) {
		for i := range l.readable {
			l.readable[i].Signal()
		}
	}
}

// readPackets is Stack.ReadLane.
func (l *link) readPackets(lane fairqueue.Lane, bufs [][]byte, sizes []int, offset int) (int, error) {
	if len(bufs) == 0 || len(sizes) < len(bufs) {
		return 0, io.ErrShortBuffer
	}
	var batch [32]outbound
	outs := batch[:min(len(batch), len(bufs))]

	l.mu.Lock()
	n := 0
	for {
		if l.closed {
			l.mu.Unlock()
			return 0, net.ErrClosed
		}
		if n = l.queue.Pop(lane, outs, math.MaxInt); n > 0 {
			break
		}
		l.readable[lane].Wait()
	}
	for _, out := range outs[:n] {
		l.used[out.budget] -= out.size
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
	var queued []outbound
	l.queue.Clear(func(out outbound) { queued = append(queued, out) })
	waiters := l.waiters
	l.waiters = [budgetExpress + 1][]*waiting{}
	for i := range l.readable {
		l.readable[i].Broadcast()
	}
	l.mu.Unlock()

	for _, out := range queued {
		out.pkt.DecRef()
	}
	for _, ws := range waiters {
		for _, w := range ws {
			w.err = &tcpip.ErrClosedForSend{}
			close(w.done)
		}
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
