package capture

import (
	"container/heap"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// overhead is what an item of a queue takes besides its packet.
	overhead = 160
	// maxFlows bounds the flows that are remembered, and maxLosses the places of losses in the queue.
	maxFlows  = 8192
	maxLosses = 2 * maxFlows
	// forget is how long a flow is remembered that has ended, and of which nothing is queued, idle how long one is that has
	// not, and crowded if there is no room for another one.
	forget  = 2 * time.Second
	idle    = 15 * time.Minute
	crowded = time.Second
	// sweepPause is the time between two looks at all flows.
	sweepPause = 500 * time.Millisecond
)

// Loss is what was dropped of a flow, or, without ends, of flows that are not known.
type Loss struct {
	Client, Server netip.AddrPort
	Packets        uint64
	Bytes          uint64 // that the client has sent, each once; of flows that are not known, as often as it sent them
}

// Record is what comes out of a Queue: a Packet, or a Loss if its Data is nil.
type Record struct {
	Packet
	Loss
}

// QueueStats are the exact counters of a Queue.
type QueueStats struct {
	Packets, Bytes         uint64 // pushed; payload to servers, retransmissions included
	Unreadable             uint64 // packets whose headers make no sense
	LostFlows              uint64 // times that a flow was given up
	LostPackets, LostBytes uint64 // as in Loss
}

// A Queue keeps packets until they are taken, in their order, within a budget. When that is used up it gives whole flows
// up, the newest first, until there is room: older ones go on without a hole. A flow that was given up is lost until it
// begins anew, or until its client sends what follows an answer while the queue has room again; a protocol of requests
// and answers can be joined there. What is lost is said in its place.
//
// A Queue is safe for concurrent use.
type Queue struct {
	budget int
	server func(iface uint8, addr netip.Addr, port uint16) bool
	ready  chan struct{} // has one element when there is something to take

	mu      sync.Mutex
	items   []*item // from next on; the rest is taken
	next    int
	dead    int // items from next on that were given up
	bytes   int
	flows   map[ends]*life
	births  uint64
	newest  births
	pending []*life // lost flows with counts that no item tells of
	losses  int     // items that are one
	unknown *life   // for the losses of flows that are not known; in flows it is not
	swept   time.Time
	stats   QueueStats
}

// item is a packet, or the place of a loss.
type item struct {
	packet  Packet
	seg     segment
	cost    int
	flow    *life
	loss    bool
	follows *item // the flow's next packet
}

// NewQueue returns a queue for what spec captures.
func NewQueue(spec Spec, budget int) *Queue {
	return &Queue{
		budget: budget, server: spec.server, ready: make(chan struct{}, 1), flows: make(map[ends]*life),
		unknown: &life{lost: true, place: -1},
	}
}

// Ready has an element when Pop may have something.
func (q *Queue) Ready() <-chan struct{} { return q.ready }

// Stats returns the counters.
func (q *Queue) Stats() QueueStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stats
}

// Push adds a packet, whose Data stays the caller's. It never waits.
func (q *Queue) Push(p Packet) {
	seg, ok := parse(p, q.server)
	q.mu.Lock()
	defer q.mu.Unlock()
	if !ok {
		q.stats.Unreadable++
		return
	}
	q.stats.Packets++
	if seg.fromClient {
		q.stats.Bytes += uint64(seg.payload)
	}
	f, next := q.flow(&seg, p.Time)
	if f.lost && (f == q.unknown || !q.resume(f, &seg, next)) {
		q.lose(f)
		return
	}
	cost := len(p.Data) + overhead
	for q.bytes+cost > q.budget {
		victim := q.victim(f)
		q.giveUp(victim)
		if victim == f {
			q.lose(f)
			return
		}
	}
	p.Data = append(make([]byte, 0, len(p.Data)), p.Data...)
	q.add(&item{packet: p, seg: seg, cost: cost, flow: f})
}

// DroppedByKernel notes that the kernel has dropped packets before those that are pushed from now on.
func (q *Queue) DroppedByKernel(packets uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unknown.packets += packets
	q.tellOf(q.unknown)
}

// Pop takes what is first.
func (q *Queue) Pop() (Record, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.next < len(q.items) {
		it := q.items[q.next]
		q.items[q.next] = nil
		q.next++
		if q.next > len(q.items)/2 {
			q.items = slices.Delete(q.items, 0, q.next)
			q.next = 0
		}
		switch {
		case it.loss:
			q.losses--
			return Record{Loss: it.flow.tell()}, true
		case it.packet.Data == nil:
			q.dead--
			continue
		}
		f := it.flow
		f.took(&it.seg)
		f.first = it.follows
		if f.first == nil {
			f.last = nil
		}
		q.bytes -= it.cost
		return Record{Packet: it.packet}, true
	}
	return Record{}, false
}

// Flush queues what is lost and not told yet.
func (q *Queue) Flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.pending {
		f.waits = false
		if f.packets > 0 {
			q.tellOf(f)
		}
	}
	clear(q.pending)
	q.pending = q.pending[:0]
}

// add appends it to the queue and to its flow. The caller holds q.mu, as those of all methods below.
func (q *Queue) add(it *item) {
	if q.dead > maxFlows && q.dead > len(q.items)/2 {
		q.items = slices.DeleteFunc(q.items[q.next:], func(it *item) bool { return !it.loss && it.packet.Data == nil })
		q.next, q.dead = 0, 0
	}
	q.items = append(q.items, it)
	q.bytes += it.cost
	if f := it.flow; !it.loss {
		if f.last != nil {
			f.last.follows = it
		} else {
			f.first = it
		}
		f.last = it
		if f.place < 0 {
			heap.Push(&q.newest, f)
		}
	}
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// flow returns the life that a segment belongs to, and notes what it says of the flow's state: next as life.note. Where
// there is no room for another one it is Queue.unknown.
func (q *Queue) flow(s *segment, now time.Time) (f *life, next bool) {
	f = q.flows[s.ends]
	if f != nil && f.isAnother(s, now) {
		q.retire(f)
		f = nil
	}
	if f == nil {
		if q.sweep(now); len(q.flows) >= maxFlows {
			if s.opens() {
				q.stats.LostFlows++
			}
			if s.fromClient {
				q.unknown.high += uint32(s.payload)
			}
			return q.unknown, false
		}
		q.births++
		f = &life{ends: s.ends, birth: q.births, place: -1}
		q.flows[s.ends] = f
	}
	return f, f.note(s, now)
}

// resume reports whether a lost flow is to go on with s, which is next or not.
func (q *Queue) resume(f *life, s *segment, next bool) bool {
	switch {
	case s.payload == 0:
		return false
	case !s.fromClient:
		f.answered = true
		return false
	case f.high == f.out:
		return false // sent again
	case !next || !f.answered || q.bytes > q.budget/4:
		f.answered = false // s is a part of a request that is lost
		return false
	}
	if f.packets > 0 {
		q.tellOf(f)
	}
	q.births++
	f.lost, f.answered, f.birth = false, false, q.births
	return true
}

// victim returns the newest flow among f and those that have something queued.
func (q *Queue) victim(f *life) *life {
	for len(q.newest) > 0 {
		top := q.newest[0]
		if top.first != nil && !top.lost {
			if top.birth > f.birth {
				return top
			}
			return f
		}
		heap.Pop(&q.newest)
	}
	return f
}

// giveUp drops all that is queued of f and marks its place.
func (q *Queue) giveUp(f *life) {
	q.stats.LostFlows++
	f.lost, f.answered = true, false
	packets := uint64(0)
	for it := f.first; it != nil; it = it.follows {
		q.bytes -= it.cost
		q.dead++
		it.packet.Data = nil
		packets++
	}
	q.count(f, packets)
	f.first, f.last = nil, nil
	if f.place >= 0 {
		heap.Remove(&q.newest, f.place)
	}
	q.tellOf(f)
}

// lose counts a packet of a lost flow.
func (q *Queue) lose(f *life) {
	q.count(f, 1)
	if !f.told && !f.waits {
		f.waits = true
		q.pending = append(q.pending, f)
	}
}

// count counts packets of f as lost, and the bytes that nobody gets for that.
func (q *Queue) count(f *life, packets uint64) {
	bytes := f.miss()
	f.packets += packets
	f.bytes += bytes
	q.stats.LostPackets += packets
	q.stats.LostBytes += bytes
}

// tellOf queues the place of f's loss, unless one waits to be taken.
func (q *Queue) tellOf(f *life) {
	switch {
	case f.told || !f.lost:
		return
	case q.losses >= maxLosses && f != q.unknown:
		// Whoever gets the rest finds a hole in the flow.
		q.unknown.packets += f.packets
		q.unknown.bytes += f.bytes
		f.packets, f.bytes = 0, 0
		f = q.unknown
		if f.told {
			return
		}
	}
	f.told = true
	q.losses++
	q.add(&item{loss: true, flow: f})
}

// retire forgets a flow, whose packets in the queue stay.
func (q *Queue) retire(f *life) {
	if f.packets > 0 {
		q.tellOf(f)
	}
	delete(q.flows, f.ends)
}

// sweep forgets flows of which nothing is to come, and if there is no room those that rest.
func (q *Queue) sweep(now time.Time) {
	if now.Sub(q.swept) < sweepPause {
		return
	}
	q.swept = now
	rest := idle
	if len(q.flows) >= maxFlows/2 {
		rest = crowded
	}
	for _, f := range q.flows {
		since := now.Sub(f.seen)
		if f.first == nil && !f.told && (f.ended && since > forget || since > rest) {
			q.retire(f)
		}
	}
}

// births orders flows with something queued, the newest first (heap.Interface).
type births []*life

func (b births) Len() int           { return len(b) }
func (b births) Less(i, j int) bool { return b[i].birth > b[j].birth }

func (b births) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].place, b[j].place = i, j
}

// Push implements heap.Interface.
func (b *births) Push(x any) {
	f := x.(*life)
	f.place = len(*b)
	*b = append(*b, f)
}

// Pop implements heap.Interface.
func (b *births) Pop() any {
	last := len(*b) - 1
	f := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	f.place = -1
	return f
}
