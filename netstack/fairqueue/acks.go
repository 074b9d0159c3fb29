package fairqueue

import (
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// AckDelay is how long an acknowledgement waits at most for something to travel with. An answer that comes at once takes
// it along; who waits for the acknowledgement itself, with Nagle's algorithm or for a server that speaks first, hardly
// notices beside a round trip through the cluster's API server.
const AckDelay = time.Millisecond

// supersede drops the last queued item of s if that only acknowledges, and so does what follows in the same flow.
func (q *Queue[T]) supersede(s *state[T], by flow.Acking) {
	if s.queue.len() == 0 || !by.Supersedes(s.queue.peekLast().acking) {
		return
	}
	it := s.queue.popLast()
	q.subtract(s, it)
	q.drop(it.value)
}

// Hurry lets the acknowledgements of a lane leave that have waited, and reports whether there are any.
func (q *Queue[T]) Hurry(l Lane) bool {
	waiting := &q.lanes[l].late
	some := waiting.len() > 0
	for waiting.len() > 0 {
		q.enter(waiting.pop())
	}
	return some
}

// Alarm is the timer of an owner of a Queue for Hurry. The zero value is ready to use; it is guarded by what guards the
// Queue.
type Alarm struct {
	timer *time.Timer // nil before the first Set
	set   bool
}

// Set has ring called after AckDelay, on a goroutine of its own, if it is not about to be called. ring must be the same
// each time and begin with Rung.
func (a *Alarm) Set(ring func()) {
	switch {
	case a.set:
		return
	case a.timer == nil:
		a.timer = time.AfterFunc(AckDelay, ring)
	default:
		a.timer.Reset(AckDelay)
	}
	a.set = true
}

// Rung lets Set work again.
func (a *Alarm) Rung() { a.set = false }

// Stop makes a like new; ring may be running.
func (a *Alarm) Stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.set = false
}
