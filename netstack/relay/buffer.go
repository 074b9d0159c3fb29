package relay

import (
	"sync"
	"sync/atomic"
)

// Buffers: a direction borrows one for a read and the write that follows, and
// none while it waits for bytes. It begins with a small one, takes a larger one
// after a read that has filled it, and goes back to the smallest that would have
// held what was read. So busy directions copy in large steps, which their peers
// see: each write may be a packet, and wakes who reads it.
// What is lent beyond small ones is bounded: a write to a peer that does not
// read keeps its buffer, and there may be a thousand of them.
const (
	smallBuffer = 4 << 10
	maxLent     = 4 << 20 // of the process, in buffers that are not small
)

// A pool lends buffers of one size.
type pool struct {
	size int
	free sync.Pool // of *[]byte
}

// The pools of all relays, from small to large: a cache, not state.
var pools = [...]pool{{size: smallBuffer}, {size: 32 << 10}, {size: 256 << 10}}

// lent counts the bytes of buffers that are not small.
var lent atomic.Int64

// borrow returns a buffer of the class or, where too much is lent, a small one.
func borrow(class int) (*[]byte, int) {
	size := pools[class].size
	if class > 0 && lent.Add(int64(size)) > maxLent {
		lent.Add(-int64(size))
		class, size = 0, smallBuffer
	}
	if b, ok := pools[class].free.Get().(*[]byte); ok {
		return b, class
	}
	b := make([]byte, size)
	return &b, class
}

// A loan is the buffer that a direction has now, or none. The zero value is a
// direction's first.
type loan struct {
	buf   *[]byte // nil = none
	class int     // of buf
	want  int     // class of the next buffer
}

// take returns a buffer of the class that is wanted.
func (l *loan) take() []byte {
	if l.buf == nil {
		l.buf, l.class = borrow(l.want)
	}
	return *l.buf
}

func (l *loan) bytes() []byte { return *l.buf }

// giveBack ends the loan, if there is one.
func (l *loan) giveBack() {
	if l.buf == nil {
		return
	}
	if l.class > 0 {
		lent.Add(-int64(len(*l.buf)))
	}
	pools[l.class].free.Put(l.buf)
	l.buf = nil
}

// adapt chooses the next buffer after a read of n bytes.
func (l *loan) adapt(n int) {
	l.want = 0
	for n > pools[l.want].size {
		l.want++
	}
	if n == len(*l.buf) {
		l.want = min(l.class+1, len(pools)-1)
	}
	if l.want != l.class {
		l.giveBack()
	}
}
