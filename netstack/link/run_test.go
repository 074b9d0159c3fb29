package link

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// drain receives from l until it is closed.
func drain(l *Link) {
	buf, sizes := [][]byte{make([]byte, maxDatagram)}, make([]int, 1)
	for {
		if _, err := l.Receive(buf, sizes); err != nil {
			return
		}
	}
}

// runs starts l.Run; the result waits in the channel.
func runs(l *Link) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- l.Run(context.Background()) }()
	return ch
}

// muted is a carrier that can go half-open: nothing arrives any more and writes are taken or block, but no error.
type muted struct {
	net.Conn
	hear  chan []byte
	done  chan struct{}
	once  sync.Once
	block atomic.Bool // writes block
}

func newMuted() *muted {
	return &muted{hear: make(chan []byte), done: make(chan struct{})}
}

func (m *muted) Read(p []byte) (int, error) {
	select {
	case b := <-m.hear:
		return copy(p, b), nil
	case <-m.done:
		return 0, io.ErrClosedPipe
	}
}

func (m *muted) Write(p []byte) (int, error) {
	if m.block.Load() {
		<-m.done
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func (m *muted) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

// waitClosed returns after how long c was closed.
func (m *muted) waitClosed() time.Duration {
	start := time.Now()
	<-m.done
	return time.Since(start)
}

func checkAbout(t *testing.T, what string, got, want, tolerance time.Duration) {
	t.Helper()
	if got < want || got > want+tolerance {
		t.Errorf("%s after %v, want %v to %v", what, got, want, want+tolerance)
	}
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Config{}), New(Config{})
		near, far := net.Pipe()
		a.Attach(near)
		b.Attach(far)
		ends := []<-chan error{runs(a), runs(b)}
		go drain(a)
		go drain(b)
		// An idle link lives on for much longer than Dead.
		time.Sleep(10 * time.Minute)
		for _, l := range []*Link{a, b} {
			s := l.Stats()
			if !s.Up || s.Redials != 0 || time.Since(s.LastReceive) > defaultHeartbeat {
				t.Errorf("idle link: %+v", s)
			}
		}
		a.Close()
		b.Close()
		for _, end := range ends {
			if err := <-end; err != nil {
				t.Errorf("Run = %v", err)
			}
		}
	})
}

// delayed hands writes on after a while.
type delayed struct {
	io.ReadWriteCloser
	d time.Duration
}

func (d delayed) Write(p []byte) (int, error) {
	time.Sleep(d.d)
	return d.ReadWriteCloser.Write(p)
}

func TestRTT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, oneWay := range []time.Duration{30 * time.Millisecond, 4 * time.Second} {
			a, b := New(Config{}), New(Config{})
			near, far := net.Pipe()
			a.Attach(delayed{near, oneWay})
			b.Attach(delayed{far, oneWay})
			ends := []<-chan error{runs(a), runs(b)}
			go drain(a)
			go drain(b)
			time.Sleep(time.Minute)
			// A heartbeat may wait for one that is being written.
			if rtt := a.Stats().RTT; rtt < 2*oneWay || rtt > 4*oneWay {
				t.Errorf("RTT %v with %v one way", rtt, oneWay)
			}
			a.Close()
			b.Close()
			<-ends[0]
			<-ends[1]
		}
	})
}

func TestHalfOpenCarrierDies(t *testing.T) {
	for _, blocked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMuted()
			m.block.Store(blocked)
			l := New(Config{})
			l.Attach(m)
			end := runs(l)
			go drain(l)
			if blocked {
				go l.Send([][]byte{{1}})
			}
			checkAbout(t, "half-open carrier closed", m.waitClosed(), defaultDead, defaultDead/4)
			if l.Stats().Up {
				t.Error("link is up without a carrier")
			}
			l.Close()
			if err := <-end; err != nil {
				t.Errorf("Run = %v", err)
			}
		})
	}
}

// TestAnyByteIsLife shows that a carrier whose writes are blocked for long lives as long as the peer sends
// anything, even if it is no pong.
func TestAnyByteIsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMuted()
		m.block.Store(true)
		l := New(Config{})
		l.Attach(m)
		end := runs(l)
		go drain(l)
		go l.Send([][]byte{{1}})
		for range 60 {
			time.Sleep(10 * time.Second)
			select {
			case m.hear <- appendDatagram(nil, []byte("data")):
			case <-m.done:
				t.Fatal("carrier closed although the peer sends")
			}
		}
		checkAbout(t, "carrier closed", m.waitClosed(), defaultDead, defaultDead/4)
		l.Close()
		<-end
	})
}

// TestNotListeningIsNotSilence shows that a carrier is not blamed while nobody calls Receive, and is once somebody does.
func TestNotListeningIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMuted()
		l := New(Config{})
		l.Attach(m)
		end := runs(l)
		time.Sleep(time.Hour)
		if !l.Stats().Up {
			t.Fatal("carrier closed for silence that nobody listened to")
		}
		go drain(l)
		checkAbout(t, "carrier closed", m.waitClosed(), defaultDead, defaultDead/4)
		l.Close()
		<-end
	})
}

func TestGrace(t *testing.T) {
	dialErr := errors.New("API server is away")
	tests := []struct {
		name string
		dial func(context.Context) (io.ReadWriteCloser, error)
	}{
		{"agent", nil},
		{"client", func(context.Context) (io.ReadWriteCloser, error) { return nil, dialErr }},
		{"client whose dial hangs", func(ctx context.Context) (io.ReadWriteCloser, error) {
			<-ctx.Done()
			return nil, dialErr
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{Dial: tt.dial})
				start := time.Now()
				err := l.Run(t.Context())
				if !errors.Is(err, ErrGrace) || tt.dial != nil && !errors.Is(err, dialErr) {
					t.Errorf("Run = %v, want ErrGrace and why", err)
				}
				checkAbout(t, "gave up", time.Since(start), defaultGrace, lastDelay)
				if err := l.Send([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Send after Run = %v", err)
				}
			})
		})
	}
}

func TestGraceCountsFromLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{})
		end := runs(l)
		go drain(l)
		time.Sleep(defaultGrace - time.Second)
		near, far := net.Pipe()
		l.Attach(near)
		go io.Copy(io.Discard, far)
		time.Sleep(10 * time.Second)
		far.Close()
		start := time.Now()
		if err := <-end; !errors.Is(err, ErrGrace) {
			t.Errorf("Run = %v", err)
		}
		checkAbout(t, "gave up", time.Since(start), defaultGrace, time.Second)
	})
}

func TestPermanentDialError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.Join(ErrPermanent, errors.New("pod is gone"))
		l := New(Config{Dial: func(context.Context) (io.ReadWriteCloser, error) { return nil, gone }})
		start := time.Now()
		if err := l.Run(t.Context()); !errors.Is(err, gone) {
			t.Errorf("Run = %v, want %v", err, gone)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("gave up after %v, want at once", d)
		}
	})
}

func TestRunEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, dial := range []func(context.Context) (io.ReadWriteCloser, error){
			nil,
			func(ctx context.Context) (io.ReadWriteCloser, error) { <-ctx.Done(); return nil, ctx.Err() },
			func(context.Context) (io.ReadWriteCloser, error) { return newMuted(), nil },
		} {
			l := New(Config{Dial: dial})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			if err := l.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
			if d := time.Since(start); d != time.Second {
				t.Errorf("ended after %v, want 1s", d)
			}
			if err := l.Run(ctx); err == nil {
				t.Error("second Run returned nil")
			}
		}
	})
}

// TestRedialTimes checks the back-off: a dial at once after a carrier that lived, growing delays while dials fail or
// carriers die young.
func TestRedialTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials []time.Duration
		var states []State
		start := time.Now()
		l := New(Config{
			OnState: func(s State) { states = append(states, s) },
			Dial: func(context.Context) (io.ReadWriteCloser, error) {
				dials = append(dials, time.Since(start))
				near, far := net.Pipe()
				switch {
				case len(dials) == 1: // lives until it is found silent
					go io.Copy(io.Discard, far)
				case len(dials) < 8:
					return nil, errors.New("refused")
				case len(dials) < 14:
					far.Close() // dies at birth
				default:
					go io.Copy(io.Discard, far)
					time.AfterFunc(10*time.Second, func() { far.Close() })
				}
				return near, nil
			},
		})
		go drain(l)
		end := runs(l)
		time.Sleep(40 * time.Second)
		l.Close()
		if err := <-end; err != nil {
			t.Errorf("Run = %v", err)
		}
		if len(dials) < 14 {
			t.Fatalf("dials at %v: too few", dials)
		}
		checkAbout(t, "first redial", dials[1]-dials[0], defaultDead, defaultDead/4)
		for i := 2; i < 14; i++ {
			gap := dials[i] - dials[i-1]
			if gap < firstDelay/2 || gap > lastDelay {
				t.Errorf("dial %d comes %v after the one before", i, gap)
			}
			if i > 8 && gap < lastDelay/2 {
				t.Errorf("dial %d comes %v after the one before: back-off was reset by a carrier that died at birth", i, gap)
			}
		}
		if slices.Equal(states, nil) || states[0] != Up || states[len(states)-1] != Down {
			t.Errorf("states %v", states)
		}
		for i := 1; i < len(states); i++ {
			if states[i] == states[i-1] {
				t.Errorf("states %v repeat", states)
			}
		}
	})
}

// TestAttachReplaces shows that a new carrier takes the place of a half-open one at once.
func TestAttachReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{})
		end := runs(l)
		go drain(l)
		old := newMuted()
		old.block.Store(true)
		l.Attach(old)
		sent := make(chan error, 1)
		go func() { sent <- l.Send([][]byte{[]byte("datagram")}) }()
		synctest.Wait()
		near, far := net.Pipe()
		l.Attach(near)
		<-old.done
		go far.Write(appendControl(nil, codeResume, make([]byte, tokenLen)))
		got := make([]byte, 0, 100)
		for len(got) < frameHeader+8 || string(got[len(got)-8:]) != "datagram" { // a ping may come first
			b := make([]byte, 100)
			n, err := far.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b[:n]...)
		}
		go io.Copy(io.Discard, far)
		if err := <-sent; err != nil {
			t.Errorf("Send = %v", err)
		}
		if s := l.Stats(); !s.Up || s.Redials != 1 {
			t.Errorf("stats %+v", s)
		}
		l.Close()
		<-end
	})
}

// TestUrgent shows that a handshake neither waits for a carrier nor for data, and that the newest goes out.
func TestUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Config{}), New(Config{})
		ends := []<-chan error{runs(a), runs(b)}
		for i, p := range []string{"old", "new", "other"} {
			if err := a.SendUrgent(i/2, []byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		go a.Send([][]byte{[]byte("data")})
		near, far := net.Pipe()
		a.Attach(near)
		b.Attach(far)
		var got []string
		bufs, sizes := [][]byte{make([]byte, 100)}, make([]int, 1)
		for range 3 {
			if _, err := b.Receive(bufs, sizes); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(bufs[0][:sizes[0]]))
		}
		slices.Sort(got)
		if !slices.Equal(got, []string{"data", "new", "other"}) {
			t.Errorf("received %q", got)
		}
		// With nobody reading at the far end and a Send blocked, it still returns.
		go a.Send([][]byte{[]byte("stuck")})
		synctest.Wait()
		a.SendUrgent(0, []byte("again"))
		a.Close()
		b.Close()
		<-ends[0]
		<-ends[1]
	})
}

// TestRedial gives carriers up that work: another takes their place and nobody is told that there was none, unless there is.
func TestRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialled := make(chan *muted, 10)
		var refuse atomic.Bool
		var states []State
		l := New(Config{
			OnState: func(s State) { states = append(states, s) },
			Dial: func(context.Context) (io.ReadWriteCloser, error) {
				if refuse.Swap(false) {
					return nil, errors.New("refused once")
				}
				m := newMuted()
				dialled <- m
				return m, nil
			},
		})
		l.Redial() // nothing to give up yet
		end := runs(l)
		first := <-dialled
		synctest.Wait()
		l.Redial()
		first.waitClosed()
		second := <-dialled
		synctest.Wait()
		if want := []State{Up}; !slices.Equal(states, want) {
			t.Errorf("states %v, want %v", states, want)
		}
		refuse.Store(true)
		l.Redial()
		second.waitClosed()
		<-dialled
		synctest.Wait()
		if want := []State{Up, Down, Up}; !slices.Equal(states, want) {
			t.Errorf("states %v, want %v", states, want)
		}
		if n := l.Stats().Redials; n != 2 {
			t.Errorf("%d redials, want 2", n)
		}
		l.Close()
		<-end
	})
}

// TestRedialWhileDialling: a carrier whose dial began before there was a better one is not used.
func TestRedialWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialled, better := make(chan *muted, 10), make(chan struct{})
		l := New(Config{Dial: func(context.Context) (io.ReadWriteCloser, error) {
			m := newMuted()
			dialled <- m
			<-better
			return m, nil
		}})
		end := runs(l)
		first := <-dialled
		l.Redial()
		close(better)
		first.waitClosed()
		<-dialled
		synctest.Wait()
		if s := l.Stats(); !s.Up || s.Redials != 0 || len(dialled) != 0 {
			t.Errorf("stats %+v, %d more dials", s, len(dialled))
		}
		l.Close()
		<-end
	})
}

// TestRedialIsAtOnce: whatever failed before, a dial follows Redial at once, and the one in progress has ended.
func TestRedialIsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, ended := make(chan time.Time, 100), make(chan error, 1)
		dials := 0
		l := New(Config{Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			begun <- time.Now()
			dials++
			switch {
			case dials < 8:
				return nil, errors.New("refused")
			case dials == 8:
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return nil, ctx.Err()
			}
			return newMuted(), nil
		}})
		end := runs(l)
		for range 8 {
			<-begun
		}
		for _, what := range []string{"a dial", "a young carrier"} {
			synctest.Wait()
			asked := time.Now()
			l.Redial()
			if wait := (<-begun).Sub(asked); wait != 0 {
				t.Errorf("instead of %s another is dialled after %v, want at once", what, wait)
			}
		}
		if cause := <-ended; !errors.Is(cause, errReplaced) {
			t.Errorf("the dial ended with %v, want %v", cause, errReplaced)
		}
		synctest.Wait()
		if s := l.Stats(); !s.Up || s.Redials != 1 || len(begun) != 0 {
			t.Errorf("stats %+v, %d more dials", s, len(begun))
		}
		l.Close()
		<-end
	})
}
