package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrIdle is the Stats.Err of a relay that a timeout of its Options has ended.
var ErrIdle = errors.New("no byte moved for too long")

// defaultHalfClosed is Options.HalfClosed if that is zero.
const defaultHalfClosed = time.Minute

// A relay is one running Copy.
type relay struct {
	a, b Conn
	opts Options

	toB, toA atomic.Int64  // bytes written
	halved   chan struct{} // closed when one direction has ended
	halve    sync.Once

	stop sync.Once
	err  error // why the relay was stopped; written once, by stop
}

// run is Copy.
func (r *relay) run(ctx context.Context) Stats {
	over := make(chan struct{})
	var directions, watcher sync.WaitGroup
	watcher.Go(func() { r.watch(ctx, over) })
	directions.Go(func() { r.direction(r.b, r.a, &r.toB) })
	directions.Go(func() { r.direction(r.a, r.b, &r.toA) })
	directions.Wait()
	close(over)
	watcher.Wait()

	r.end(nil)
	return Stats{AToB: r.toB.Load(), BToA: r.toA.Load(), Err: r.err}
}

// direction copies src to dst until one of them ends, and passes the end on.
func (r *relay) direction(dst, src Conn, n *atomic.Int64) {
	err := copyStream(dst, src, n)
	if err == nil {
		err = dst.CloseWrite()
		if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE) {
			// dst is gone both ways already: the other direction knows how.
			err = nil
		}
	}
	if err != nil {
		r.end(err)
	}
	r.halve.Do(func() { close(r.halved) })
}

// end closes both conns, once. After a failure both peers see a reset, for
// what they have got must not look like a whole stream.
func (r *relay) end(cause error) {
	r.stop.Do(func() {
		r.err = cause
		for _, c := range []Conn{r.a, r.b} {
			if cause != nil {
				reset(c)
			}
			c.Close()
		}
	})
}

// reset makes c's peer see a RST, now or when c is closed.
func reset(c Conn) {
	switch c := c.(type) {
	case interface{ Reset() error }:
		c.Reset()
	case *net.TCPConn:
		c.SetLinger(0)
	}
}

// watch ends the relay when ctx is done or no byte has moved for too long. It
// returns when over is closed.
func (r *relay) watch(ctx context.Context, over <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	halved, limit := r.halved, r.opts.Idle
	moved, since := r.moved(), time.Now()
	for {
		timer.Stop()
		var quiet <-chan time.Time // nil if there is no limit
		if limit > 0 {
			timer.Reset(time.Until(since.Add(limit)))
			quiet = timer.C
		}
		select {
		case <-over:
			return
		case <-ctx.Done():
			r.end(context.Cause(ctx))
			<-over
			return
		case <-halved:
			halved, limit, since = nil, r.opts.HalfClosed, time.Now()
		case <-quiet:
			// Activity is looked at only here, so a quiet relay lasts between
			// one and two limits.
			if now := r.moved(); now != moved {
				moved, since = now, time.Now()
				continue
			}
			r.end(ErrIdle)
			<-over
			return
		}
	}
}

// moved grows when bytes move.
func (r *relay) moved() int64 { return r.toA.Load() + r.toB.Load() }

// Buffers: a direction has a small one, and a large one for the next read after
// one that has filled its buffer. So busy directions copy in large steps, and
// one that waits holds a small buffer.
const (
	smallBuffer = 32 << 10
	largeBuffer = 256 << 10
)

// copyStream copies src to dst until EOF, for which it returns nil. It uses
// Read and Write alone: ReadFrom and WriteTo of conns would take buffers of
// their own, of a fixed size.
func copyStream(dst io.Writer, src io.Reader, n *atomic.Int64) error {
	buf := small.get()
	defer func() { buf.put() }()
	for {
		k, err := src.Read(buf.bytes)
		if k > 0 {
			written, werr := dst.Write(buf.bytes[:k])
			n.Add(int64(written))
			if werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		want := &small
		if k == len(buf.bytes) {
			want = &large
		}
		if buf.pool != want {
			buf.put()
			buf = want.get()
		}
	}
}

// A pool lends buffers of one size.
type pool struct {
	size int
	free sync.Pool // of *buffer
}

// A buffer goes back to the pool that it is from.
type buffer struct {
	bytes []byte
	pool  *pool
}

// The pools of all relays: a cache, not state.
var (
	small = pool{size: smallBuffer}
	large = pool{size: largeBuffer}
)

func (p *pool) get() *buffer {
	if b, ok := p.free.Get().(*buffer); ok {
		return b
	}
	return &buffer{bytes: make([]byte, p.size), pool: p}
}

func (b *buffer) put() { b.pool.free.Put(b) }
