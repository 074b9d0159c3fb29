package session

import (
	"net"
	"sync"
	"time"

	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/flow"
)

// Bounds of the queue towards the tunnel, in bytes. What a device has in store is read into it at once, so that a flow's
// packets wait behind those of their own flow only. While the link is down it holds what programs have in flight, so that
// they go on when it is back without waiting for their retransmission timers.
const (
	queueUp   = 16 << 20
	queueDown = 4 << 20
)

// Packet buffers come in two sizes: acknowledgements are many.
const (
	smallPacket = 2 << 10
	largePacket = maxPacket
)

// readBytes is about how much is handed to WireGuard at once.
const readBytes = 256 << 10

// queue holds packets on their way to the tunnel, in its two lanes. While the link is up a push to a full queue waits;
// while it is down it drops the packet: behind it may be one for the laptop's own loopback, which works without a link.
type queue struct {
	small, large sync.Pool // of *[]byte

	mu       sync.Mutex
	readable [fairqueue.Lanes]sync.Cond // there is a packet in the lane, or closed
	writable sync.Cond                  // there is room, or up changed, or closed
	packets  *fairqueue.Queue[*[]byte]
	alarm    fairqueue.Alarm // of acknowledgements that wait for something to travel with
	up       [fairqueue.Lanes]bool
	closed   bool
	dropped  uint64
}

func newQueue() *queue {
	q := &queue{}
	q.packets = fairqueue.New(q.recycle)
	q.writable.L = &q.mu
	for i := range q.readable {
		q.readable[i].L = &q.mu
	}
	q.small.New = func() any { b := make([]byte, 0, smallPacket); return &b }
	q.large.New = func() any { b := make([]byte, 0, largePacket); return &b }
	return q
}

// buffer returns an empty buffer for any packet.
func (q *queue) buffer() *[]byte { return q.large.Get().(*[]byte) }

// push adds the packet in b, a buffer of this queue. It returns the buffer to use next: b again if the packet is small
// enough to be copied.
func (q *queue) push(b *[]byte) *[]byte { return q.pushBy(q.add, b) }

// pushNow is push for what is small, bounded elsewhere and sent from where nothing may wait: it finds room in a full queue.
func (q *queue) pushNow(b *[]byte) *[]byte { return q.pushBy(q.addNow, b) }

func (q *queue) pushBy(add func(*[]byte, fairqueue.Packet), b *[]byte) *[]byte {
	pkt := *b
	p := fairqueue.Packet{Size: len(pkt)}
	if parsed, err := flow.Parse(pkt); err == nil {
		p.Flow, p.Acking = parsed.Flow, parsed.Acking
	}
	own, next := b, b
	if len(pkt) <= smallPacket {
		own = q.small.Get().(*[]byte)
		*own = append((*own)[:0], pkt...)
	} else {
		next = q.buffer()
	}
	add(own, p)
	return next
}

func (q *queue) add(b *[]byte, p fairqueue.Packet) {
	q.mu.Lock()
	lane := q.packets.Lane(p.Flow)
	for q.up[lane] && !q.closed && q.packets.LaneBytes(lane)+p.Size > queueUp {
		q.writable.Wait()
		lane = q.packets.Lane(p.Flow)
	}
	q.addAndUnlock(b, p)
}

func (q *queue) addNow(b *[]byte, p fairqueue.Packet) {
	q.mu.Lock()
	q.addAndUnlock(b, p)
}

// addAndUnlock adds a packet and unlocks q.mu before it wakes the reader up, which takes a while and wants the lock then.
func (q *queue) addAndUnlock(b *[]byte, p fairqueue.Packet) {
	lane := q.packets.Lane(p.Flow)
	if q.closed || !q.up[lane] && q.packets.LaneBytes(lane)+p.Size > queueDown {
		q.dropped++
		q.mu.Unlock()
		q.recycle(b)
		return
	}
	lane, waits := q.packets.Push(b, p, time.Now())
	if waits {
		q.alarm.Set(q.hurry)
	}
	q.mu.Unlock()
	if !waits {
		q.readable[lane].Signal()
	}
}

// hurry lets acknowledgements go that have waited.
func (q *queue) hurry() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.alarm.Rung()
	for lane := range fairqueue.Lanes {
		if q.packets.Hurry(lane) {
			q.readable[lane].Signal()
		}
	}
}

// pop waits for packets of a lane and copies as many as there are and fit.
func (q *queue) pop(lane fairqueue.Lane, bufs [][]byte, sizes []int, offset int) (int, error) {
	var batch [packetBatch]*[]byte
	taken := batch[:min(len(bufs), len(batch))]
	q.mu.Lock()
	n := 0
	for {
		if q.closed {
			q.mu.Unlock()
			return 0, net.ErrClosed
		}
		if n = q.packets.Pop(lane, taken, readBytes); n > 0 {
			break
		}
		q.readable[lane].Wait()
	}
	q.writable.Broadcast()
	q.mu.Unlock()

	for i, b := range taken[:n] {
		sizes[i] = copy(bufs[i][offset:], *b)
		q.recycle(b)
	}
	return n, nil
}

// setUp tells whether the link of a lane has a carrier.
func (q *queue) setUp(lane fairqueue.Lane, up bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.up[lane] = up
	if lane == fairqueue.Bulk {
		q.packets.Split(up)
	}
	q.writable.Broadcast()
}

// strand is wg.LanePackets.Strand.
func (q *queue) strand() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.packets.Strand()
	q.readable[fairqueue.Express].Signal()
	q.writable.Broadcast()
}

// arrived is wg.LanePackets.Arrived.
func (q *queue) arrived(lane fairqueue.Lane, n uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.packets.Arrived(lane, n) {
		for i := range q.readable {
			q.readable[i].Signal()
		}
	}
}

// open makes the queue that of a new tunnel. Nobody may read for another one any more.
func (q *queue) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.packets, q.closed, q.up = fairqueue.New(q.recycle), false, [fairqueue.Lanes]bool{}
}

// close drops what is queued and makes pop return net.ErrClosed.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.alarm.Stop()
	q.packets.Clear(func(*[]byte) {})
	for i := range q.readable {
		q.readable[i].Broadcast()
	}
	q.writable.Broadcast()
}

// drops counts the packets that were dropped.
func (q *queue) drops() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

func (q *queue) recycle(b *[]byte) {
	if cap(*b) == smallPacket {
		q.small.Put(b)
		return
	}
	q.large.Put(b)
}
