package replay

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// itemCost is what an item is counted for beside its bytes.
const itemCost = 256

// An itemKind says what an item is.
type itemKind uint8

const (
	itemBegin    itemKind = iota // a request: data is its head
	itemBody                     // bytes of a request's body
	itemEnd                      // the request is complete
	itemRaw                      // bytes of a stream
	itemSwitched                 // bytes behind a request that may have switched protocols
	itemCut                      // what follows is missing
	itemFin                      // the client has ended its direction
	itemReset                    // the client or the server has reset the connection
)

// An item is a step of what a flow does to the local program.
type item struct {
	kind    itemKind
	data    []byte
	request *request    // of itemBegin
	trailer http.Header // of itemEnd, of HTTP/2
	fate    fate        // of itemCut: what becomes of the request or stream
	stream  bool        // of itemCut: it is a stream
}

func (i item) cost() int { return len(i.data) + itemCost }

// A budget bounds what all queues hold together.
type budget struct {
	max  int64
	held atomic.Int64
	room chan struct{} // holds one: something was released
}

// release gives n bytes back, and wakes who waits for room.
func (b *budget) release(n int) {
	b.held.Add(-int64(n))
	b.wake()
}

func (b *budget) wake() {
	select {
	case b.room <- struct{}{}:
	default:
	}
}

// A queue holds the items of one flow between the capture and the local program.
type queue struct {
	all *budget
	max int           // bytes
	end chan struct{} // closed when no item follows

	mu     sync.Mutex
	more   *sync.Cond // an item came, or none will
	items  []item
	held   int
	cuts   int  // how many of items are cuts
	ended  bool // no item follows
	closed bool // nobody reads any more
}

func newQueue(all *budget, limit int) *queue {
	q := &queue{all: all, max: limit, end: make(chan struct{})}
	q.more = sync.NewCond(&q.mu)
	return q
}

// push adds an item. It never waits: who pushes much looks for room before.
func (q *queue) push(i item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.ended {
		return
	}
	switch i.kind {
	case itemFin, itemReset:
		q.ended = true
		close(q.end)
	case itemCut:
		q.cuts++
	}
	q.items = append(q.items, i)
	q.held += i.cost()
	q.all.held.Add(int64(i.cost()))
	q.more.Broadcast()
}

// fits reports whether n more bytes fit; if nobody reads any more, they do.
func (q *queue) fits(n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed || q.held+n <= q.max && q.all.held.Load()+int64(n) <= q.all.max
}

// hasCut reports whether something is missing behind what was popped.
func (q *queue) hasCut() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cuts > 0
}

// pop waits for the next item. It reports false when none will come.
func (q *queue) pop() (item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 || q.closed {
		if q.closed || q.ended {
			return item{}, false
		}
		q.more.Wait()
	}
	i := q.items[0]
	q.items[0] = item{} // for the garbage collector
	q.items = q.items[1:]
	q.held -= i.cost()
	q.all.release(i.cost())
	if i.kind == itemCut {
		q.cuts--
	}
	return i, true
}

// stop makes pop report that nothing will come, and everything fit.
func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Broadcast()
	q.all.wake()
}

// close discards what will come, and returns what is there.
func (q *queue) close() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.closed, q.items = true, nil
	q.all.release(q.held)
	q.held = 0
	q.more.Broadcast()
	return items
}
