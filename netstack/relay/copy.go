package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrIdle is the Stats.Err of a relay that a timeout of its Options ended.
var ErrIdle = errors.New("idle for too long")

// defaultHalfClosed is Options.HalfClosed if that is zero.
const defaultHalfClosed = time.Minute

// A relay is one running Copy.
type relay struct {
	a, b Conn
	opts Options

	toB, toA atomic.Int64 // bytes written
	ended    atomic.Int32 // directions that have ended

	stop sync.Once
	err  error // why it was stopped; written by stop, read after the end
}

func copyBoth(ctx context.Context, a, b Conn, opts Options) Stats {
	if opts.HalfClosed == 0 {
		opts.HalfClosed = defaultHalfClosed
	}
	r := &relay{a: a, b: b, opts: opts}

	over := make(chan struct{})
	var watch, dirs sync.WaitGroup
	watch.Go(func() { r.watch(ctx, over) })
	dirs.Go(func() { r.direction(b, a, &r.toB) })
	dirs.Go(func() { r.direction(a, b, &r.toA) })
	dirs.Wait()
	close(over)
	watch.Wait()

	r.end(nil)
	return Stats{AToB: r.toB.Load(), BToA: r.toA.Load(), Err: r.err}
}

// direction copies src to dst until one of them ends, and passes the end on.
func (r *relay) direction(dst, src Conn, n *atomic.Int64) {
	err := copyCounted(dst, src, n)
	if err == nil {
		// The FIN. If dst cannot take it any more, its own direction says why.
		err = dst.CloseWrite()
		if errors.Is(err, syscall.ENOTCONN) {
			err = nil
		}
	}
	if err != nil {
		r.end(err)
	}
	r.ended.Add(1)
}

// end closes both conns, once: with resets if the cause is one, or nil if
// nothing went wrong.
func (r *relay) end(cause error) {
	r.stop.Do(func() {
		r.err = cause
		if cause == nil {
			r.a.Close()
			r.b.Close()
			return
		}
		abort(r.a)
		abort(r.b)
	})
}

// abort closes c so that its peer sees a reset: what it has got so far must
// not look like a whole stream.
func abort(c Conn) {
	switch c := c.(type) {
	case interface{ Reset() error }:
		c.Reset()
	case *net.TCPConn:
		c.SetLinger(0)
	}
	c.Close()
}

// watch ends the relay when ctx is done or nothing has moved for too long. It
// returns after over is closed.
func (r *relay) watch(ctx context.Context, over <-chan struct{}) {
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	last, since := r.moved(), time.Now()
	halved := false
	for {
		limit := r.limit()
		if limit > 0 {
			tick.Reset(time.Until(since.Add(limit)))
		} else {
			tick.Stop()
		}
		_ = halved
		select {
		case <-over:
			return
		case <-ctx.Done():
			r.end(context.Cause(ctx))
			<-over
			return
		case <-tick.C:
			if now := r.moved(); now != last {
				last, since = now, time.Now()
				continue
			}
			r.end(os.ErrDeadlineExceeded)
			<-over
			return
		}
	}
}

func (r *relay) moved() int64 { return r.toA.Load() + r.toB.Load() }

func (r *relay) limit() time.Duration {
	if r.ended.Load() > 0 {
		return r.opts.HalfClosed
	}
	return r.opts.Idle
}

func copyCounted(dst io.Writer, src io.Reader, n *atomic.Int64) error {
	buf := make([]byte, 32<<10)
	for {
		k, err := src.Read(buf)
		if k > 0 {
			w, werr := dst.Write(buf[:k])
			n.Add(int64(w))
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
	}
}
