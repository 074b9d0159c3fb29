package session

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/router"
)

// device is the packet device of the session's network namespace.
type device interface {
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	Write(bufs [][]byte, offset int) (int, error)
	BatchSize() int
}

// packetBatch is how many packets cross between device and stack at once.
const packetBatch = 16

// maxPacket is the largest IP packet.
const maxPacket = 65535

// fabric carries packets between the session's namespace, the client's stack
// and the tunnel, as the router decides.
type fabric struct {
	router *router.Router
	stack  *netstack.Stack
	log    *slog.Logger
	queue  *queue                // to the tunnel
	answer func(pkt []byte) bool // takes DNS queries out of what goes to the stack; nil: none; set before open

	namespace atomic.Pointer[device] // nil until the helper runs
	container atomic.Pointer[device] // nil until a container has joined
	lost      atomic.Bool            // no tunnel for programs: the stack refuses in its place
	wg        sync.WaitGroup         // pumps; each ends with the stack or the device it reads
}

func newFabric(r *router.Router, stack *netstack.Stack, log *slog.Logger) *fabric {
	return &fabric{router: r, stack: stack, log: log, queue: newQueue()}
}

// pumpStack forwards what leaves the stack until the stack is closed.
func (f *fabric) pumpStack() {
	f.wg.Go(func() { f.pump(f.stack.ReadPackets, packetBatch, f.fromStack) })
}

// open joins the namespace and forwards what leaves it until its device is closed.
func (f *fabric) open(d device) {
	f.namespace.Store(&d)
	f.wg.Go(func() { f.pump(d.Read, d.BatchSize(), f.fromSession) })
}

// openContainer joins the namespace of a container, in the place of the one before, until its device is closed.
func (f *fabric) openContainer(d device) {
	f.container.Store(&d)
	f.wg.Go(func() { f.pump(d.Read, d.BatchSize(), f.fromContainer) })
}

// pump hands each packet that read returns to forward, in a buffer of the queue. forward returns the buffer to use next.
func (f *fabric) pump(read func([][]byte, []int, int) (int, error), batch int, forward func(*[]byte) *[]byte) {
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	own := make([]*[]byte, batch)
	for i := range bufs {
		own[i] = f.queue.buffer()
		bufs[i] = (*own[i])[:maxPacket]
	}
	for {
		n, err := read(bufs, sizes, 0)
		for i := range n {
			*own[i] = bufs[i][:sizes[i]]
			if next := forward(own[i]); next != own[i] {
				own[i] = next
				bufs[i] = (*next)[:maxPacket]
			}
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				f.log.Warn("packets stop", "err", err)
			}
			return
		}
	}
}

func (f *fabric) fromSession(b *[]byte) *[]byte { return f.outward(f.router.FromSession(*b), b) }

func (f *fabric) fromContainer(b *[]byte) *[]byte { return f.outward(f.router.FromContainer(*b), b) }

// outward forwards a packet of a program and returns the buffer to use next.
func (f *fabric) outward(v router.Verdict, b *[]byte) *[]byte {
	switch v {
	case router.ToTunnel:
		if !f.lost.Load() {
			return f.queue.push(b)
		}
		f.stack.Deliver(*b) // resets what is open, refuses what is new
	case router.ToStack:
		if f.answer == nil || !f.answer(*b) {
			f.stack.Deliver(*b)
		}
	}
	return b
}

func (f *fabric) fromStack(b *[]byte) *[]byte { return f.fromStackBy(f.queue.push, b) }

// fromStackBy forwards what the stack sends, to the tunnel by push.
func (f *fabric) fromStackBy(push func(*[]byte) *[]byte, b *[]byte) *[]byte {
	// The router lets the stack speak in nobody's name; refusals come in the name of those who cannot be reached any more.
	refuses := f.lost.Load() && !fromClient(*b)
	if refuses && f.container.Load() == nil {
		f.into(&f.namespace, [][]byte{*b}, 0)
		return b
	}
	switch f.router.FromStack(*b) {
	case router.Drop:
		if refuses { // whose flow it is, is forgotten; who has no such flow ignores that
			f.into(&f.namespace, [][]byte{*b}, 0)
			f.into(&f.container, [][]byte{*b}, 0)
		}
	case router.ToTunnel:
		return push(b)
	case router.ToSession:
		f.into(&f.namespace, [][]byte{*b}, 0)
	case router.ToContainer:
		f.into(&f.container, [][]byte{*b}, 0)
	}
	return b
}

// sendUDP sends a datagram of the DNS proxy in the place of the stack, without waiting: neither for the goroutine that reads the
// stack, which takes longer to wake up than all else that happens to an answer here, nor for room on the way to the tunnel, for
// it is called from where the tunnel is read, too.
func (f *fabric) sendUDP(src, dst netip.AddrPort, payload []byte) {
	b := f.queue.buffer()
	*b = netstack.AppendUDP((*b)[:0], src, dst, payload)
	f.queue.recycle(f.fromStackBy(f.queue.pushNow, b))
}

func (f *fabric) fromTunnel(bufs [][]byte, offset int) {
	inward := make([][]byte, 0, packetBatch)
	var contained [][]byte
	for _, b := range bufs {
		switch f.router.FromTunnel(b[offset:]) {
		case router.ToSession:
			inward = append(inward, b)
		case router.ToContainer:
			contained = append(contained, b)
		case router.ToStack:
			f.stack.Deliver(b[offset:])
		}
	}
	f.into(&f.namespace, inward, offset)
	f.into(&f.container, contained, offset)
}

// into writes packets into a namespace, if it is there.
func (f *fabric) into(at *atomic.Pointer[device], bufs [][]byte, offset int) {
	d := at.Load()
	if d == nil || len(bufs) == 0 {
		return
	}
	if _, err := (*d).Write(bufs, offset); err != nil && !errors.Is(err, net.ErrClosed) {
		f.log.Debug("packets into the namespace", "err", err)
	}
}

// fromClient reports whether the stack sends a packet in its own name.
func fromClient(pkt []byte) bool {
	return len(pkt) >= 20 && pkt[0]>>4 == 4 && [4]byte(pkt[12:16]) == wire.ClientAddr.As4()
}

// lose cuts the tunnel off: from now on the stack answers for it. What is open is
// reset, also where nobody sends.
func (f *fabric) lose() {
	f.lost.Store(true)
	f.queue.close()
	f.stack.Abort(wire.ClientAddr)
	for _, open := range f.router.Forget() {
		packet := [][]byte{netstack.Challenge(open)}
		f.into(&f.namespace, packet, 0)
		f.into(&f.container, packet, 0)
	}
}

// regain lets programs use the tunnel that there is again.
func (f *fabric) regain() { f.lost.Store(false) }

// drops counts dropped packets by reason.
func (f *fabric) drops() map[string]uint64 {
	out := f.router.Stats().Drops
	if n := f.queue.drops(); n > 0 {
		if out == nil {
			out = map[string]uint64{}
		}
		out["no room while the link is down"] = n
	}
	return out
}

// tunnelPort is the fabric as the tunnel sees it. It implements
// wg.LanePackets.
type tunnelPort struct{ fabric *fabric }

func (p tunnelPort) ReadLane(lane fairqueue.Lane, bufs [][]byte, sizes []int, offset int) (int, error) {
	return p.fabric.queue.pop(lane, bufs, sizes, offset)
}

func (p tunnelPort) Split(on bool) { p.fabric.queue.setUp(fairqueue.Bulk, on) }

func (p tunnelPort) Strand() { p.fabric.queue.strand() }

func (p tunnelPort) Arrived(lane fairqueue.Lane, n uint64) { p.fabric.queue.arrived(lane, n) }

func (p tunnelPort) Write(bufs [][]byte, offset int) (int, error) {
	p.fabric.fromTunnel(bufs, offset)
	return len(bufs), nil
}

func (tunnelPort) BatchSize() int { return packetBatch }

func (p tunnelPort) Close() error {
	p.fabric.queue.close()
	return nil
}
