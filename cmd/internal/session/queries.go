package session

import (
	"context"
	"sync"
	"sync/atomic"
)

const (
	maxQueries = 1024 // DNS queries over UDP that are answered at a time
	// maxWaiting bounds those that wait for their turn: as many as programs have sockets
	// that ask again and again.
	maxWaiting = 1024
	// keptWorkers is how many goroutines wait for the next burst.
	keptWorkers = 256
)

// queries answers DNS queries that came in datagrams. Its goroutines serve one query after the other: to start one per
// query costs a fifth of a cached answer, most of it for the growth of its stack. One that has replied may take a while
// to be ready for the next query, while programs already send it, so that queries wait for goroutines too.
type queries struct {
	ctx     context.Context // done when the session ends
	dns     dnsServer
	dropped atomic.Uint64 // queries that found no room
	wg      sync.WaitGroup

	mu      sync.Mutex
	work    sync.Cond // there is a query that an idle goroutine is to take, or the session has ended
	waiting []query
	workers int // goroutines
	idle    int // of them, those that wait and are not yet told of a query
	ended   bool
}

// query is a query and the way of its reply.
type query struct {
	payload []byte
	reply   func([]byte)
}

func newQueries(ctx context.Context, dns dnsServer) *queries {
	q := &queries{ctx: ctx, dns: dns}
	q.work.L = &q.mu
	context.AfterFunc(ctx, q.end)
	return q
}

// add answers payload, which it copies, by reply. It does not block: when there are too many, the query is dropped and the
// resolver asks again.
func (q *queries) add(payload []byte, reply func([]byte)) {
	next := query{append([]byte(nil), payload...), reply}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || len(q.waiting) >= maxWaiting {
		q.dropped.Add(1)
		return
	}
	q.waiting = append(q.waiting, next)
	switch {
	case q.idle > 0:
		q.idle--
		q.work.Signal()
	case q.workers < maxQueries:
		q.workers++
		q.wg.Go(q.serve)
	}
}

// serve answers queries until there is none and enough other goroutines wait, or the session ends.
func (q *queries) serve() {
	for {
		next, ok := q.take()
		if !ok {
			return
		}
		if reply := q.dns.Answer(q.ctx, next.payload, true); reply != nil {
			next.reply(reply)
		}
	}
}

// take waits for a query. It reports false to a goroutine that is needed no more.
func (q *queries) take() (query, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.ended && q.idle < keptWorkers {
		q.idle++
		q.work.Wait()
	}
	if len(q.waiting) == 0 || q.ended {
		q.workers--
		return query{}, false
	}
	next := q.waiting[0]
	q.waiting[0] = query{}
	q.waiting = q.waiting[1:]
	return next, true
}

// end lets every goroutine go.
func (q *queries) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.work.Broadcast()
}
