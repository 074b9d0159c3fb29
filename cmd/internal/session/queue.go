package session

import (
	"net"
	"sync"
)

// Bounds of the queue towards the tunnel, in bytes. While the link is up the
// queue holds little, so that a small packet never waits long behind bulk; while
// it is down the queue holds what programs have in flight, so that they go on
// when it is back without waiting for their retransmission timers.
const (
	queueUp   = 128 << 10
	queueDown = 1 << 20
)

// Packet buffers come in two sizes: acknowledgements are many.
const (
	smallPacket = 2 << 10
	largePacket = 64 << 10
)

// queue holds packets on their way to the tunnel. While the link is up a push
// to a full queue waits; while it is down it drops the packet: behind it may be
// one for the laptop's own loopback, which works without a link.
type queue struct {
	small, large sync.Pool // of *[]byte

	mu       sync.Mutex
	readable sync.Cond // there is a packet, or closed
	writable sync.Cond // there is room, or up changed, or closed
	packets  []*[]byte
	bytes    int
	up       bool
	closed   bool
	dropped  uint64
}

func newQueue() *queue {
	q := &queue{}
	q.readable.L, q.writable.L = &q.mu, &q.mu
	q.small.New = func() any { b := make([]byte, 0, smallPacket); return &b }
	q.large.New = func() any { b := make([]byte, 0, largePacket); return &b }
	return q
}

// push adds a copy of pkt.
func (q *queue) push(pkt []byte) {
	b := q.buffer(len(pkt))
	*b = append((*b)[:0], pkt...)
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.up && !q.closed && q.bytes > 0 && q.bytes+len(pkt) > queueUp {
		q.writable.Wait()
	}
	if q.closed || !q.up && q.bytes+len(pkt) > queueDown {
		q.dropped++
		q.recycle(b)
		return
	}
	q.packets = append(q.packets, b)
	q.bytes += len(pkt)
	q.readable.Signal()
}

// pop waits for packets and copies as many as there are and fit.
func (q *queue) pop(bufs [][]byte, sizes []int, offset int) (int, error) {
	q.mu.Lock()
	for len(q.packets) == 0 && !q.closed {
		q.readable.Wait()
	}
	if q.closed {
		q.mu.Unlock()
		return 0, net.ErrClosed
	}
	n := min(len(bufs), len(q.packets))
	var taken [16]*[]byte
	n = copy(taken[:n:min(n, len(taken))], q.packets)
	for _, b := range taken[:n] {
		q.bytes -= len(*b)
	}
	q.packets = append(q.packets[:0], q.packets[n:]...)
	q.writable.Broadcast()
	q.mu.Unlock()

	for i, b := range taken[:n] {
		sizes[i] = copy(bufs[i][offset:], *b)
		q.recycle(b)
	}
	return n, nil
}

// setUp tells whether the link has a carrier.
func (q *queue) setUp(up bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.up = up
	q.writable.Broadcast()
}

// close drops what is queued and makes pop return net.ErrClosed.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.packets, q.bytes = true, nil, 0
	q.readable.Broadcast()
	q.writable.Broadcast()
}

// drops counts the packets that were dropped.
func (q *queue) drops() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

func (q *queue) buffer(size int) *[]byte {
	if size <= smallPacket {
		return q.small.Get().(*[]byte)
	}
	return q.large.Get().(*[]byte)
}

func (q *queue) recycle(b *[]byte) {
	if cap(*b) == smallPacket {
		q.small.Put(b)
		return
	}
	q.large.Put(b)
}
