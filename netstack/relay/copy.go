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

	toB, toA atomic.Int64 // bytes written
	halve    sync.Once    // when one direction has ended

	mu    sync.Mutex
	quiet *time.Timer // of the limit that holds, nil = none; guarded by mu

	stop sync.Once
	err  error // why the relay was stopped; written once, by stop
}

// run is Copy.
func (r *relay) run(ctx context.Context) Stats {
	stop := context.AfterFunc(ctx, func() { r.end(context.Cause(ctx)) })
	defer stop()
	r.limit(r.opts.Idle)
	var other sync.WaitGroup
	other.Go(func() { r.direction(r.b, r.a, &r.toB) })
	r.direction(r.a, r.b, &r.toA)
	other.Wait()
	r.limit(0)
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
	r.halve.Do(func() { r.limit(r.opts.HalfClosed) })
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

// limit ends the relay once no byte has moved for d, counted from now; d ≤ 0
// means never. It is looked at only when d is over, so a quiet relay lasts
// between one and two limits. A timer does it and no goroutine, for there are
// many relays that wait.
func (r *relay) limit(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quiet != nil {
		r.quiet.Stop()
		r.quiet = nil
	}
	if d <= 0 {
		return
	}
	moved := r.moved()
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		r.mu.Lock()
		now, current := r.moved(), r.quiet == t
		idle := now == moved
		if current && !idle {
			moved = now
			t.Reset(d)
		}
		r.mu.Unlock()
		if current && idle {
			r.end(ErrIdle)
		}
	})
	r.quiet = t
}

// moved grows when bytes move.
func (r *relay) moved() int64 { return r.toA.Load() + r.toB.Load() }

// copyStream copies src to dst until EOF, for which it returns nil. It uses no
// ReadFrom and WriteTo of conns: they would take buffers of their own, of a
// fixed size, and keep them while they wait.
func copyStream(dst io.Writer, src Conn, n *atomic.Int64) error {
	from, l := newSource(src), loan{}
	defer l.giveBack()
	for {
		k, err := from.ReadLazily(l.take, l.giveBack)
		if k > 0 {
			written, werr := dst.Write(l.bytes()[:k])
			n.Add(int64(written))
			if werr != nil {
				return werr
			}
			l.adapt(k)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
