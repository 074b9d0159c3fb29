package wg

import (
	"sync"
	"time"
)

const (
	windowBytes   = 512 << 10
	windowPackets = 256 // fewer than wireguard-go's queues have places, so that nothing blocks on them

	// After so long without a packet leaving, those inside are taken for dropped by wireguard-go. It drops what it
	// cannot decrypt, and what waited in vain for a handshake.
	inboundStall  = 100 * time.Millisecond
	outboundStall = 5 * time.Second
)

// window bounds the packets that are inside wireguard-go in one direction. They leave in the order in which they entered,
// so that one which leaves takes those along that entered before it: these were dropped inside. It counts them.
type window[K comparable] struct {
	stall time.Duration
	room  chan struct{} // holds one; wakes wait
	done  chan struct{} // closed by close
	once  sync.Once

	mu      sync.Mutex // guards the fields below
	inside  []passage[K]
	bytes   int // sum over inside
	leaving int // calls between begin and end: what is inside waits for them
	left    time.Time
	out     uint64 // number of the last packet that left or was dropped
}

// passage is a packet inside; key tells it from the others there.
type passage[K comparable] struct {
	key    K
	size   int
	number uint64
}

func newWindow[K comparable](stall time.Duration) *window[K] {
	return &window[K]{
		stall:  stall,
		room:   make(chan struct{}, 1),
		done:   make(chan struct{}),
		inside: make([]passage[K], 0, 64),
	}
}

// wait waits for room and reports false after close. One goroutine may wait at a time.
func (w *window[K]) wait() bool {
	if w.open() {
		return !w.closed()
	}
	t := time.NewTimer(w.stall)
	defer t.Stop()
	for {
		select {
		case <-w.done:
			return false
		case <-w.room:
		case <-t.C:
			w.expire()
			t.Reset(w.stall)
		}
		if w.open() {
			return true
		}
	}
}

func (w *window[K]) closed() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (w *window[K]) open() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes < windowBytes && len(w.inside) < windowPackets
}

// expire forgets what is inside if nothing has left for long and nothing is about to.
func (w *window[K]) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leaving == 0 && time.Since(w.left) >= w.stall {
		w.dropLocked(len(w.inside))
	}
}

// enter counts a packet in. Numbers grow from packet to packet.
func (w *window[K]) enter(key K, size int, number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inside = append(w.inside, passage[K]{key, size, number})
	w.bytes += size
}

// begin announces that packets are about to leave, however long that takes.
func (w *window[K]) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaving++
}

// end ends what begin began: the packet with this key, and those that entered before it, are out. A key that is
// not inside is ignored. It returns the number of the last that is out.
func (w *window[K]) end(key K) (out uint64) {
	w.mu.Lock()
	w.leaving--
	w.left = time.Now()
	for i, p := range w.inside {
		if p.key == key {
			w.dropLocked(i + 1)
			break
		}
	}
	out = w.out
	w.mu.Unlock()
	select {
	case w.room <- struct{}{}:
	default:
	}
	return out
}

// dropLocked removes the first n packets. The caller holds w.mu.
func (w *window[K]) dropLocked(n int) {
	for _, p := range w.inside[:n] {
		w.bytes -= p.size
		w.out = p.number
	}
	rest := copy(w.inside, w.inside[n:])
	clear(w.inside[rest:]) // a key may be a pointer
	w.inside = w.inside[:rest]
}

// close makes wait return false.
func (w *window[K]) close() {
	w.once.Do(func() { close(w.done) })
}
