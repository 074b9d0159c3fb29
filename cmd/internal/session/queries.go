package session

import (
	"context"
	"sync"
	"time"
)

const (
	maxQueries = 1024 // DNS queries over UDP in flight
	// workerIdle is how long a goroutine waits for its next query.
	workerIdle = 10 * time.Second
)

// queries answers DNS queries that came in datagrams. Its goroutines serve one query after the other: to start one per
// query costs a fifth of a cached answer, most of it for the growth of its stack.
type queries struct {
	ctx  context.Context // done when the session ends
	dns  dnsServer
	work chan query    // to a goroutine that waits
	free chan struct{} // holds one per goroutine
	wg   sync.WaitGroup
}

// query is a query and the way of its reply.
type query struct {
	payload []byte
	reply   func([]byte)
}

func newQueries(ctx context.Context, dns dnsServer) *queries {
	return &queries{ctx: ctx, dns: dns, work: make(chan query), free: make(chan struct{}, maxQueries)}
}

// add answers payload, which it copies, by reply. It does not block: when there are too many, the query is dropped and the
// resolver asks again.
func (q *queries) add(payload []byte, reply func([]byte)) {
	next := query{append([]byte(nil), payload...), reply}
	select {
	case q.work <- next:
		return
	default:
	}
	select {
	case q.free <- struct{}{}:
		q.wg.Go(func() { q.serve(next) })
	default:
	}
}

// serve answers next and what comes after it, until there was nothing for workerIdle or the session ends.
func (q *queries) serve(next query) {
	defer func() { <-q.free }()
	idle := time.NewTimer(workerIdle)
	defer idle.Stop()
	for {
		if reply := q.dns.Answer(q.ctx, next.payload, true); reply != nil {
			next.reply(reply)
		}
		idle.Reset(workerIdle)
		select {
		case next = <-q.work:
		case <-idle.C:
			return
		case <-q.ctx.Done():
			return
		}
	}
}
