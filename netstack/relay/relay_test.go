package relay_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/relay"
)

// A pipe is one end of an in-memory conn whose directions end separately.
type pipe struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func newPipe() (a, b *pipe) {
	ar, bw := io.Pipe()
	br, aw := io.Pipe()
	return &pipe{ar, aw}, &pipe{br, bw}
}

func (p *pipe) Read(b []byte) (int, error)  { return p.r.Read(b) }
func (p *pipe) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p *pipe) CloseWrite() error           { return p.w.Close() }

func (p *pipe) Close() error {
	p.w.Close()
	return p.r.CloseWithError(syscall.EPIPE)
}

func (p *pipe) Reset() error {
	p.w.CloseWithError(syscall.ECONNRESET)
	return p.r.CloseWithError(syscall.ECONNRESET)
}

func (*pipe) LocalAddr() net.Addr              { return nil }
func (*pipe) RemoteAddr() net.Addr             { return nil }
func (*pipe) SetDeadline(time.Time) error      { return nil }
func (*pipe) SetReadDeadline(time.Time) error  { return nil }
func (*pipe) SetWriteDeadline(time.Time) error { return nil }

var _ relay.Conn = (*pipe)(nil)

// start relays between two pipes and returns their outer ends.
func start(ctx context.Context, opts relay.Options) (a, b *pipe, result <-chan relay.Stats) {
	a, innerA := newPipe()
	b, innerB := newPipe()
	done := make(chan relay.Stats, 1)
	go func() { done <- relay.Copy(ctx, innerA, innerB, opts) }()
	return a, b, done
}

func TestHalfCloseBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, result := start(t.Context(), relay.Options{})
		go func() {
			io.WriteString(a, "question")
			a.CloseWrite()
		}()
		if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
			t.Fatalf("b read %q, %v", got, err)
		}
		// Long after a's FIN, but not too long, b answers.
		time.Sleep(50 * time.Second)
		go func() {
			io.WriteString(b, "answer")
			time.Sleep(50 * time.Second)
			io.WriteString(b, ", complete")
			b.CloseWrite()
		}()
		if got, err := io.ReadAll(a); err != nil || string(got) != "answer, complete" {
			t.Fatalf("a read %q, %v", got, err)
		}
		if got, want := <-result, (relay.Stats{AToB: 8, BToA: 16}); got != want {
			t.Errorf("stats = %+v, want %+v", got, want)
		}
	})
}

func TestResetPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, result := start(t.Context(), relay.Options{})
		a.Reset()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("b read %v, want ECONNRESET", err)
		}
		if got := <-result; !errors.Is(got.Err, syscall.ECONNRESET) {
			t.Errorf("stats = %+v, want ECONNRESET", got)
		}
	})
}

func TestTimeouts(t *testing.T) {
	tests := []struct {
		name     string
		opts     relay.Options
		half     bool // a ends its direction at once
		min, max time.Duration
	}{
		{"idle", relay.Options{Idle: time.Minute}, false, time.Minute, 2 * time.Minute},
		{"half-closed-default", relay.Options{}, true, time.Minute, 2 * time.Minute},
		{"half-closed", relay.Options{Idle: time.Hour, HalfClosed: time.Second}, true, time.Second, 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				a, b, result := start(t.Context(), tt.opts)
				if tt.half {
					a.CloseWrite()
				}
				go io.Copy(io.Discard, b)
				got := <-result
				if took := time.Since(began); took < tt.min || took > tt.max {
					t.Errorf("ended after %v, want %v to %v", took, tt.min, tt.max)
				}
				if !errors.Is(got.Err, relay.ErrIdle) {
					t.Errorf("stats = %+v, want ErrIdle", got)
				}
				if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("a read %v, want ECONNRESET", err)
				}
			})
		})
	}
}

func TestTrafficIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, result := start(t.Context(), relay.Options{Idle: time.Minute})
		go io.Copy(io.Discard, b)
		for range 60 {
			io.WriteString(a, "x")
			time.Sleep(50 * time.Second)
		}
		a.CloseWrite()
		b.CloseWrite()
		io.Copy(io.Discard, a)
		if got, want := <-result, (relay.Stats{AToB: 60}); got != want {
			t.Errorf("stats = %+v, want %+v", got, want)
		}
	})
}

func TestNeverIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, result := start(t.Context(), relay.Options{HalfClosed: -1})
		a.CloseWrite()
		time.Sleep(24 * time.Hour)
		b.CloseWrite()
		if got := <-result; got.Err != nil {
			t.Errorf("stats = %+v, want no error", got)
		}
	})
}

func TestContextEndsRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("session is over")
		ctx, cancel := context.WithCancelCause(t.Context())
		a, b, result := start(ctx, relay.Options{})
		// A writer that nobody reads must not hold it up.
		go a.Write(make([]byte, 1<<20))
		synctest.Wait()
		cancel(cause)
		if got := <-result; got.Err != cause {
			t.Errorf("stats = %+v, want %v", got, cause)
		}
		b.Close()
	})
}

// tcpPair returns both ends of a kernel TCP conn.
func tcpPair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func TestKernelConns(t *testing.T) {
	leaktest.Check(t)
	a, innerA := tcpPair(t)
	innerB, b := tcpPair(t)
	result := make(chan relay.Stats, 1)
	go func() { result <- relay.Copy(t.Context(), innerA, innerB, relay.Options{}) }()

	const size = 16<<20 + 17
	up, down := make([]byte, size), make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(up)
	random.Read(down)
	var wg sync.WaitGroup
	send := func(c *net.TCPConn, b []byte) {
		if _, err := io.Copy(c, bytes.NewReader(b)); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
	}
	check := func(c *net.TCPConn, want []byte) {
		h := sha256.New()
		if n, err := io.Copy(h, c); err != nil || n != size {
			t.Errorf("read %d bytes, %v", n, err)
		}
		if sum := sha256.Sum256(want); !bytes.Equal(h.Sum(nil), sum[:]) {
			t.Error("wrong bytes")
		}
	}
	wg.Go(func() { send(a, up) })
	wg.Go(func() { send(b, down) })
	wg.Go(func() { check(a, down) })
	wg.Go(func() { check(b, up) })
	wg.Wait()
	if got, want := <-result, (relay.Stats{AToB: size, BToA: size}); got != want {
		t.Errorf("stats = %+v, want %+v", got, want)
	}
}

func TestKernelReset(t *testing.T) {
	a, innerA := tcpPair(t)
	innerB, b := tcpPair(t)
	result := make(chan relay.Stats, 1)
	go func() { result <- relay.Copy(t.Context(), innerA, innerB, relay.Options{}) }()
	io.WriteString(a, "partial")
	buf := make([]byte, 7)
	if _, err := io.ReadFull(b, buf); err != nil {
		t.Fatal(err)
	}
	a.SetLinger(0)
	a.Close()
	if _, err := b.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("b read %v, want ECONNRESET", err)
	}
	if got := <-result; !errors.Is(got.Err, syscall.ECONNRESET) {
		t.Errorf("stats = %+v, want ECONNRESET", got)
	}
}
