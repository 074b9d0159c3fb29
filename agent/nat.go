package agent

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// natTable maps a program's datagram endpoint (UDP source address and port, or
// ICMP echo source address and identifier) to its socket in the pod. When it
// is full, the endpoint that has been silent longest gives way.
type natTable[S closer] struct {
	max int

	mu      sync.Mutex
	entries map[netip.AddrPort]*natEntry[S] // nil after close
}

type closer interface{ Close() error }

// natEntry is one endpoint's socket. Its sending goroutine keeps the stack's
// delivery path from waiting for a socket; it ends with done, the receiving
// goroutine with the socket.
type natEntry[S closer] struct {
	program netip.AddrPort
	socket  S
	queue   chan outbound // never closed
	queued  atomic.Int32  // what is in queue, and being sent out of it
	done    chan struct{} // closed when the entry has left the table
	active  atomic.Int64  // time of the last datagram, Unix nanoseconds
}

// outbound is one datagram or echo request on its way into the pod's network.
type outbound struct {
	dst     netip.AddrPort
	seq     uint16 // of an echo request
	payload []byte
}

// queueLen bounds the datagrams that wait for one socket.
const queueLen = 64

func newNATTable[S closer](max int) *natTable[S] {
	return &natTable[S]{max: max, entries: make(map[netip.AddrPort]*natEntry[S])}
}

// get returns the program's entry. A new one gets its socket from open and is
// handed to start, which must not block.
func (t *natTable[S]) get(program netip.AddrPort, open func() (S, error), start func(*natEntry[S])) (*natEntry[S], error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == nil {
		return nil, net.ErrClosed
	}
	if e, ok := t.entries[program]; ok {
		return e, nil
	}
	socket, err := open()
	if err != nil {
		return nil, err
	}
	if len(t.entries) >= t.max {
		t.removeLocked(t.oldestLocked())
	}
	e := &natEntry[S]{program: program, socket: socket, queue: make(chan outbound, queueLen), done: make(chan struct{})}
	e.touch()
	t.entries[program] = e
	start(e)
	return e, nil
}

// remove takes e out of the table and closes its socket. Later calls do
// nothing.
func (t *natTable[S]) remove(e *natEntry[S]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(e)
}

func (t *natTable[S]) removeLocked(e *natEntry[S]) {
	if t.entries[e.program] != e {
		return
	}
	delete(t.entries, e.program)
	close(e.done)
	e.socket.Close()
}

func (t *natTable[S]) oldestLocked() *natEntry[S] {
	var oldest *natEntry[S]
	for _, e := range t.entries {
		if oldest == nil || e.active.Load() < oldest.active.Load() {
			oldest = e
		}
	}
	return oldest
}

// close removes every entry; none can be added after.
func (t *natTable[S]) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		t.removeLocked(e)
	}
	t.entries = nil
}

func (e *natEntry[S]) touch() { e.active.Store(time.Now().UnixNano()) }

// idleFor returns how long ago the last datagram passed.
func (e *natEntry[S]) idleFor() time.Duration {
	return time.Since(time.Unix(0, e.active.Load()))
}

// enqueue hands out to the sending goroutine and reports whether there was
// room.
func (e *natEntry[S]) enqueue(out outbound) bool {
	e.queued.Add(1)
	select {
	case e.queue <- out:
		e.touch()
		return true
	default:
		e.queued.Add(-1)
		return false
	}
}

// sendAll passes what is queued to send until the entry is gone or has been
// idle for so long.
func (e *natEntry[S]) sendAll(idle time.Duration, send func(outbound)) {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		select {
		case <-e.done:
			return
		case out := <-e.queue:
			send(out)
			e.queued.Add(-1)
		case <-timer.C:
			left := idle - e.idleFor()
			if left <= 0 {
				return
			}
			timer.Reset(left)
		}
	}
}
