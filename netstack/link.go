package netstack

import (
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/flow"
)

// Byte budgets of a link's outbound queue for what is dropped for want of room.
// A packet counts with its size on the wire.
const (
	controlBudget  = 64 << 10
	againBudget    = maxBuffer
	datagramBudget = 256 << 10
)

// The budget of retransmissions is a conn's whole window: that is lost with a
// carrier whose peer has begun anew. What is dropped here waits for another
// timeout, which is at its longest by then. Queued retransmissions share their
// bytes with the conn's send buffer, so the budget costs little memory.

// What a conn may have queued before its Write waits, and all conns together:
// beyond that only conns that have nothing queued may write.
const (
	connQueue  = 256 << 10
	stackQueue = 4 << 20
)

// A budget is what packets on their way out are charged to.
type budget uint8

const (
	budgetData     budget = iota // TCP segments with data: bounded by admit
	budgetControl                // other TCP segments
	budgetAgain                  // retransmitted TCP segments
	budgetDatagram               // UDP, ICMP, fragments
	budgets
)

var budgetBytes = [budgets]int{math.MaxInt, controlBudget, againBudget, datagramBudget}

// An outbound is a packet on its way out. The link holds a reference to it.
type outbound struct {
	pkt    *stack.PacketBuffer
	size   int
	budget budget
}

// A waiting is a conn whose Write waits for room.
type waiting struct {
	flow flow.Flow
	done chan struct{} // closed when it may try again
}

// A link is the gVisor side of the stack's packet pipe.
//
// Nothing waits in it: gVisor sends from where it receives and with locks held,
// and two peers that both waited for room would wait for each other. What
// bounds the queue is that conns ask before they write, see admit.
type link struct {
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	mtu        atomic.Uint32
	yields     func(flow.Flow) bool // as Config has it; nil = none does

	mu       sync.Mutex
	readable [fairqueue.Lanes]sync.Cond // something can be popped from the lane, or closed
	queue    *fairqueue.Queue[outbound]
	patient  bool            // acknowledgements wait for something to travel with
	alarm    fairqueue.Alarm // of those
	used     [budgets]int
	waiters  []waiting
	senders  map[flow.Flow]*sender
	closed   bool
	dropped  [budgets]uint64
	waits    uint64
	packets  uint64
	bytes    uint64
}

var _ stack.LinkEndpoint = (*link)(nil)

func newLink(mtu int) *link {
	l := &link{senders: make(map[flow.Flow]*sender)}
	l.queue = fairqueue.New(l.supersededLocked)
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
	p := describe(pkt, out.size)

	lane, waits, err := l.push(out, p)
	if err == nil && !waits {
		l.readable[lane].Signal() // not in the lock: it takes a while, and the reader wants the lock then
	}
	return err
}

// push queues a packet, or says why not, and reports whether it waits for something to travel with.
func (l *link) push(out outbound, p fairqueue.Packet) (_ fairqueue.Lane, waits bool, _ tcpip.Error) {
	pkt := out.pkt
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, false, &tcpip.ErrClosedForSend{}
	}
	if pkt.TransportProtocolNumber == header.TCPProtocolNumber {
		out.budget = budgetControl
		if payload := pkt.Data().Size(); payload > 0 {
			out.budget = budgetData
			from := l.senders[p.Flow]
			if from != nil && from.again(pkt.TransportHeader().Slice(), payload) {
				out.budget = budgetAgain
			}
		}
	}
	if used := l.used[out.budget]; used > 0 && used+out.size > budgetBytes[out.budget] {
		l.dropped[out.budget]++
		return 0, false, &tcpip.ErrNoBufferSpace{}
	}
	out.pkt.IncRef()
	l.used[out.budget] += out.size
	lane, waits := l.queue.Push(out, p, time.Now())
	switch {
	case !waits:
	case l.patient:
		l.alarm.Set(l.hurry)
	default:
		l.hurryLocked()
	}
	return lane, waits, nil
}

// supersededLocked forgets a packet that leaves no more. The caller holds l.mu.
func (l *link) supersededLocked(out outbound) {
	l.used[out.budget] -= out.size
	out.pkt.DecRef()
}

// hurry lets acknowledgements go that have waited.
func (l *link) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alarm.Rung()
	l.hurryLocked()
}

func (l *link) hurryLocked() {
	for lane := range fairqueue.Lanes {
		if l.queue.Hurry(lane) {
			l.readable[lane].Signal()
		}
	}
}

// describe says what the queue has to know of pkt.
func describe(pkt *stack.PacketBuffer, size int) fairqueue.Packet {
	p := fairqueue.Packet{Size: size}
	h := pkt.TransportHeader().Slice()
	switch {
	case pkt.TransportProtocolNumber == header.TCPProtocolNumber && len(h) >= header.TCPMinimumSize:
		p.Flow = flowOf(pkt, flow.TCP, header.TCP(h))
		p.Acking = flow.ParseAcking(h, pkt.Data().Size())
	case pkt.TransportProtocolNumber == header.UDPProtocolNumber && len(h) >= header.UDPMinimumSize:
		p.Flow = flowOf(pkt, flow.UDP, header.UDP(h))
	}
	return p
}

// admit asks for a conn whether it may write. If not, the channel is closed
// when it may ask again.
func (l *link) admit(f flow.Flow) (<-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.admitsLocked(f) {
		return nil, true
	}
	w := waiting{flow: f, done: make(chan struct{})}
	l.waiters = append(l.waiters, w)
	l.waits++
	return w.done, false
}

func (l *link) admitsLocked(f flow.Flow) bool {
	own := l.queue.FlowBytes(f)
	if l.yields != nil && l.yields(f) && l.queue.Bytes() > own {
		return false
	}
	return own == 0 || own < connQueue && l.queue.Bytes() < stackQueue
}

// abandon forgets a conn that does not wait any more.
func (l *link) abandon(done <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiters = slices.DeleteFunc(l.waiters, func(w waiting) bool { return w.done == done })
}

// wakeLocked lets conns ask again, the first first: as many as find room.
func (l *link) wakeLocked() {
	l.waiters = slices.DeleteFunc(l.waiters, func(w waiting) bool {
		if !l.admitsLocked(w.flow) {
			return false
		}
		close(w.done)
		return true
	})
}

// split is Stack.Split.
func (l *link) split(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.Split(on)
}

// strand is Stack.Strand.
func (l *link) strand() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.Strand()
	l.readable[fairqueue.Express].Signal()
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
	l.wakeLocked()
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

// close fails later calls, lets waiting conns go and drops what is queued.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.alarm.Stop()
	var queued []outbound
	l.queue.Clear(func(out outbound) { queued = append(queued, out) })
	for _, w := range l.waiters {
		close(w.done)
	}
	l.waiters = nil
	for i := range l.readable {
		l.readable[i].Broadcast()
	}
	l.mu.Unlock()

	for _, out := range queued {
		out.pkt.DecRef()
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
