// Package fairqueue orders packets before they are encrypted: flows take turns, a flow that sends little goes first, and
// flows that send much use a lane of their own, so that nobody waits behind them.
//
// A Queue has two lanes, [Express] and [Bulk], each with its own way to the other end. A flow begins in Express, moves
// to Bulk when it sends much, and is back when it does not any more. No flow is ever reordered by that: its packets
// wait until those that left by the other lane have arrived. Inside a lane flows take turns as in FQ-CoDel
// (RFC 8290 §4), with a byte deficit each, and flows that have just begun come before those that are at it.
//
// A TCP acknowledgement that waits is superseded by the next one of its flow: only the last of them leaves. One that is alone waits for a moment for that, or for anything else that leaves by its lane. On
// its way each packet wakes every process there, so those that say nothing new cost what calls and data need.
//
// A Queue starts no goroutine and bounds nothing: its owner does, by Bytes. It is unsafe for concurrent use.
package fairqueue

import (
	"slices"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Lane is one of the two ways out of a Queue.
type Lane uint8

// The lanes.
const (
	Express Lane = iota // flows that send little: calls, and acknowledgements of what comes the other way
	Bulk                // flows that send much
	Lanes
)

// String returns the lane's name.
func (l Lane) String() string {
	switch l {
	case Express:
		return "express"
	case Bulk:
		return "bulk"
	}
	return "invalid"
}

const (
	// A flow sends much when it has sent burst bytes more than calm allows, or has so many queued because the way is slow.
	// One call after another, of which each waits for its answer, does not.
	burst = 128 << 10
	calm  = 1 << 20 // bytes per second
	// quantum is what a flow may send in its turn.
	quantum = 64 << 10
	// forget is how long a flow is remembered of which nothing is queued.
	forget = time.Second
)

// Packet says what a Queue has to know of an item.
type Packet struct {
	Flow   flow.Flow
	Size   int
	Acking flow.Acking // zero if it is none
}

// Queue holds items, which are packets in whatever form its owner has them.
type Queue[T any] struct {
	drop  func(T) // told of items that are superseded
	flows map[flow.Flow]*state[T]
	lanes [Lanes]lane[T]
	held  []*state[T] // flows that wait for their packets of the other lane to arrive
	bytes int
	count int
	split bool // Bulk may be used
	swept time.Time
}

// item is an item and what has to be known of it.
type item[T any] struct {
	value  T
	size   int
	acking flow.Acking
}

// lane is a lane's flows that have something queued, and how far it has come.
type lane[T any] struct {
	fresh, going fifo[*state[T]]
	late         fifo[*state[T]] // have a pure acknowledgement alone, which need not leave yet
	popped       uint64          // packets that have left by this lane
	arrived      uint64          // of these have arrived at the other end
	bytes        int
}

// state is a flow that has something queued, or had lately.
type state[T any] struct {
	key     flow.Flow
	queue   fifo[item[T]]
	bytes   int
	lane    Lane
	place   place
	deficit int
	last    uint64 // lane.popped after its last packet that left by lane; 0 = none did
	level   int    // bytes sent beyond what calm allows, 2*burst at most
	seen    time.Time
}

// place says in which list of its lane a flow is.
type place uint8

const (
	nowhere place = iota
	fresh
	going
	late
	held
)

// New returns an empty Queue, which uses Express only until it is told to [Queue.Split]. Push hands items that are
// superseded to drop.
func New[T any](drop func(T)) *Queue[T] {
	return &Queue[T]{drop: drop, flows: make(map[flow.Flow]*state[T])}
}

// Split says whether flows may move to Bulk. Those that are there stay while they send much, or until [Queue.Strand].
func (q *Queue[T]) Split(on bool) { q.split = on }

// Bytes returns the size of what is queued.
func (q *Queue[T]) Bytes() int { return q.bytes }

// Len returns how many items are queued.
func (q *Queue[T]) Len() int { return q.count }

// LaneBytes returns the size of what is queued in a lane.
func (q *Queue[T]) LaneBytes(l Lane) int { return q.lanes[l].bytes }

// FlowBytes returns the size of what is queued of a flow.
func (q *Queue[T]) FlowBytes(f flow.Flow) int {
	if s := q.flows[f]; s != nil {
		return s.bytes
	}
	return 0
}

// Lane returns the lane that a flow is in.
func (q *Queue[T]) Lane(f flow.Flow) Lane {
	if s := q.flows[f]; s != nil {
		return s.lane
	}
	return Express
}

// Push adds an item. It returns the lane that it will leave by, and whether it may wait: then nothing can be popped that
// could not before, and [Queue.Hurry] is due after [AckDelay].
func (q *Queue[T]) Push(value T, p Packet, now time.Time) (l Lane, waits bool) {
	s := q.flows[p.Flow]
	if s == nil {
		q.sweep(now)
		s = &state[T]{key: p.Flow}
		q.flows[p.Flow] = s
	}
	s.pour(p.Size, now)
	q.choose(s)
	q.supersede(s, p.Acking)
	q.add(s, item[T]{value, p.Size, p.Acking})
	switch alone := s.queue.len() == 1; {
	case s.place == late && alone && p.Acking.Pure:
		return s.lane, true
	case s.place == late:
		removeFrom(&q.lanes[s.lane].late, s)
		q.enter(s)
	case s.place == nowhere && p.Acking.Pure:
		s.place = late
		q.lanes[s.lane].late.push(s)
		return s.lane, true
	case s.place == nowhere:
		q.enter(s)
	}
	return s.lane, false
}

// add queues an item of s.
func (q *Queue[T]) add(s *state[T], it item[T]) {
	s.queue.push(it)
	s.bytes += it.size
	q.lanes[s.lane].bytes += it.size
	q.bytes += it.size
	q.count++
}

// pour counts what s sends.
func (s *state[T]) pour(size int, now time.Time) {
	if since := now.Sub(s.seen); since > time.Second {
		s.level = 0
	} else {
		s.level = max(s.level-int(int64(since)*calm/int64(time.Second)), 0)
	}
	s.level = min(s.level+size, 2*burst)
	s.seen = now
}

// choose moves s to the lane that it belongs to.
func (q *Queue[T]) choose(s *state[T]) {
	want := s.lane
	switch {
	case s.place == held:
		return // it has just moved
	case s.lane == Express && q.split && (s.level > burst || s.bytes > burst):
		want = Bulk
	case s.lane == Bulk && s.level <= quantum && s.bytes == 0:
		want = Express
	}
	if want == s.lane {
		return
	}
	from := &q.lanes[s.lane]
	switch s.place {
	case fresh:
		removeFrom(&from.fresh, s)
	case going:
		removeFrom(&from.going, s)
	case late:
		removeFrom(&from.late, s)
	}
	from.bytes -= s.bytes
	q.lanes[want].bytes += s.bytes
	waits := s.last > from.arrived
	s.lane, s.place = want, nowhere
	if waits {
		s.place = held
		q.held = append(q.held, s)
		return
	}
	s.last = 0
	q.enter(s)
}

// enter lists s in its lane if anything of it is queued.
func (q *Queue[T]) enter(s *state[T]) {
	s.place = nowhere
	if s.queue.len() > 0 {
		s.place, s.deficit = fresh, quantum
		q.lanes[s.lane].fresh.push(s)
	}
}

// Pop removes up to len(out) items from a lane, and no more than the first that makes them maxBytes or more. It
// returns how many. Acknowledgements that may wait come only behind others.
func (q *Queue[T]) Pop(l Lane, out []T, maxBytes int) int {
	n, size := 0, 0
	for n < len(out) && size < maxBytes {
		it, ok := q.next(l)
		if !ok {
			break
		}
		out[n] = it.value
		n++
		size += it.size
	}
	if n == 0 {
		return 0
	}
	for waiting := &q.lanes[l].late; n < len(out) && waiting.len() > 0; n++ {
		s := waiting.pop()
		s.place = nowhere
		out[n] = q.take(s).value
	}
	return n
}

func (q *Queue[T]) next(l Lane) (item[T], bool) {
	lane := &q.lanes[l]
	for {
		list := &lane.fresh
		if list.len() == 0 {
			list = &lane.going
		}
		if list.len() == 0 {
			return item[T]{}, false
		}
		s := list.peek()
		switch {
		case s.queue.len() == 0:
			list.pop()
			// A fresh flow that has sent all goes behind the others once, or it would always be fresh (RFC 8290 §4.2).
			if s.place == fresh && lane.going.len() > 0 {
				s.place = going
				lane.going.push(s)
			} else {
				s.place = nowhere
			}
		case s.deficit <= 0:
			s.deficit += quantum
			list.pop()
			s.place = going
			lane.going.push(s)
		default:
			it := q.take(s)
			s.deficit -= it.size
			return it, true
		}
	}
}

// take removes the first item of s, which leaves by its lane.
func (q *Queue[T]) take(s *state[T]) item[T] {
	lane, it := &q.lanes[s.lane], s.queue.pop()
	q.subtract(s, it)
	lane.popped++
	s.last = lane.popped
	return it
}

// subtract counts an item of s that is queued no more.
func (q *Queue[T]) subtract(s *state[T], it item[T]) {
	s.bytes -= it.size
	q.lanes[s.lane].bytes -= it.size
	q.bytes -= it.size
	q.count--
}

// Arrived says that the first n packets that ever left by a lane have arrived at the other end, or are lost. It reports
// whether something can be popped that could not before.
func (q *Queue[T]) Arrived(l Lane, n uint64) bool {
	lane := &q.lanes[l]
	lane.arrived = max(lane.arrived, min(n, lane.popped))
	ready := false
	rest := q.held[:0]
	for _, s := range q.held {
		if s.lane == l || s.last > lane.arrived { // it waits for the lane that it is not in
			rest = append(rest, s)
			continue
		}
		s.last = 0
		q.enter(s)
		ready = true
	}
	clear(q.held[len(rest):])
	q.held = rest
	return ready
}

// Strand moves all flows to Express: Bulk leads nowhere. What has left by it is taken for lost, so nobody waits until it
// has arrived.
func (q *Queue[T]) Strand() {
	q.Arrived(Bulk, q.lanes[Bulk].popped)
	bulk := &q.lanes[Bulk]
	q.held = slices.DeleteFunc(q.held, func(s *state[T]) bool { return s.lane == Bulk })
	bulk.fresh, bulk.going, bulk.late = fifo[*state[T]]{}, fifo[*state[T]]{}, fifo[*state[T]]{}
	for _, s := range q.flows {
		if s.lane != Bulk {
			continue
		}
		bulk.bytes -= s.bytes
		q.lanes[Express].bytes += s.bytes
		if s.place != held { // one that is has not left Express: its last packet is of that lane
			s.last = 0
		}
		s.lane = Express
		q.enter(s)
	}
}

// Clear drops all items, which it hands to drop.
func (q *Queue[T]) Clear(drop func(T)) {
	for _, s := range q.flows {
		for s.queue.len() > 0 {
			drop(s.queue.pop().value)
		}
	}
	clear(q.flows)
	q.held, q.bytes, q.count = nil, 0, 0
	for i := range q.lanes {
		l := &q.lanes[i]
		l.fresh, l.going, l.late, l.bytes = fifo[*state[T]]{}, fifo[*state[T]]{}, fifo[*state[T]]{}, 0
	}
}

// sweep forgets, now and then, flows that have been silent. Who comes back begins in Express, so what left by Bulk must
// have arrived.
func (q *Queue[T]) sweep(now time.Time) {
	if now.Sub(q.swept) < forget {
		return
	}
	q.swept = now
	for key, s := range q.flows {
		arrived := s.lane == Express || s.last <= q.lanes[Bulk].arrived
		if s.place == nowhere && arrived && now.Sub(s.seen) > forget {
			delete(q.flows, key)
		}
	}
}
