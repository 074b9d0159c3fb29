package session

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// slowDNS answers when it is let go.
type slowDNS struct {
	begun   chan struct{}
	release chan struct{}
}

func (d *slowDNS) Answer(_ context.Context, query []byte, _ bool) []byte {
	d.begun <- struct{}{}
	<-d.release
	return query
}

func (*slowDNS) ServeTCP(context.Context, net.Conn) {}

// TestQueries: as many queries as there is room for are answered, at the same time and with
// what waits in its turn; what finds no room is counted; and the end leaves no goroutine.
func TestQueries(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dns := &slowDNS{begun: make(chan struct{}, 2*maxQueries+maxWaiting), release: make(chan struct{})}
	q := newQueries(ctx, dns)
	var mu sync.Mutex
	got := map[string]int{}
	answered := make(chan struct{}, cap(dns.begun))
	add := func(id string) {
		q.add([]byte(id), func(reply []byte) {
			mu.Lock()
			got[string(reply)]++
			mu.Unlock()
			answered <- struct{}{}
		})
	}
	wait := func(c chan struct{}, n int, what string) {
		t.Helper()
		for i := range n {
			select {
			case <-c:
			case <-time.After(time.Minute):
				t.Fatalf("%d of %d %s", i, n, what)
			}
		}
	}
	id := func(i int) string { return string([]byte{byte(i >> 8), byte(i)}) }
	for i := range maxQueries {
		add(id(i))
	}
	wait(dns.begun, maxQueries, "are answered at the same time")
	for i := range maxWaiting + 3 {
		add(id(maxQueries + i))
	}
	if n := q.dropped.Load(); n != 3 {
		t.Errorf("%d dropped, want 3", n)
	}
	close(dns.release)
	wait(answered, maxQueries+maxWaiting, "are answered")
	mu.Lock()
	if len(got) != maxQueries+maxWaiting {
		t.Errorf("%d answers, want one to each of %d", len(got), maxQueries+maxWaiting)
	}
	mu.Unlock()
	// Idle goroutines are used again.
	eventually(t, "goroutines to wait", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.idle == q.workers && q.idle > 0 && q.idle <= keptWorkers
	})
	add("again")
	wait(answered, 1, "after a pause")
	cancel()
	q.wg.Wait()
	if q.workers != 0 {
		t.Errorf("%d goroutines are left", q.workers)
	}
}
