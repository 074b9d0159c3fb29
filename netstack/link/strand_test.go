package link

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/link/linktest"
)

// end is one end of a Link that can be without a carrier, and what it has received.
type end struct {
	*Link
	got     chan string
	settled atomic.Uint64
}

func newEnd(cfg Config) *end {
	e := &end{Link: New(cfg), got: make(chan string, 100)}
	e.OnSettle(func(n uint64) { // who read less may tell it later
		for was := e.settled.Load(); n > was && !e.settled.CompareAndSwap(was, n); was = e.settled.Load() {
		}
	})
	return e
}

func (e *end) receive() {
	bufs, sizes := [][]byte{make([]byte, maxDatagram)}, make([]int, 1)
	for {
		if _, err := e.Receive(bufs, sizes); err != nil {
			return
		}
		e.got <- string(bufs[0][:sizes[0]])
	}
}

func (e *end) send(t *testing.T, text string) {
	t.Helper()
	if err := e.Send([][]byte{[]byte(text)}); err != nil {
		t.Fatal(err)
	}
}

func (e *end) expect(t *testing.T, want string) {
	t.Helper()
	linktest.Within(t, patience, "the arrival of "+want, func() {
		if got := <-e.got; got != want {
			t.Errorf("received %q, want %q", got, want)
		}
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	linktest.Within(t, patience, what, func() {
		for !is() {
			time.Sleep(time.Millisecond)
		}
	})
}

// TestStrand gives up what either end holds while there is no carrier: it does not arrive later, nothing waits for it, and the
// next carrier carries what comes then, in order and over losses as ever.
func TestStrand(t *testing.T) {
	for _, tt := range []struct {
		name          string
		client, agent bool // gives up
	}{{"both", true, true}, {"client", true, false}, {"agent", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			var mu sync.Mutex
			var away bool
			var carrier io.Closer
			agent := newEnd(Config{})
			client := newEnd(Config{Dial: func(context.Context) (io.ReadWriteCloser, error) {
				mu.Lock()
				defer mu.Unlock()
				if away {
					return nil, errors.New("nobody is there")
				}
				c, a := linktest.Pipes()
				carrier = c
				agent.Attach(a)
				return c, nil
			}})
			lose := func(forGood bool) {
				mu.Lock()
				defer mu.Unlock()
				away = forGood
				carrier.Close()
			}
			both := map[*end]bool{client: tt.client, agent: tt.agent}
			other := map[*end]*end{client: agent, agent: client}
			var running sync.WaitGroup
			for e := range both {
				running.Go(e.receive)
				running.Go(func() {
					if err := e.Run(context.Background()); err != nil {
						t.Errorf("Run: %v", err)
					}
				})
			}
			defer running.Wait()
			defer client.Close()
			defer agent.Close()

			for e := range both {
				e.send(t, "first")
				other[e].expect(t, "first")
				if e.Strand() {
					t.Error("there is a carrier, and its link is given up")
				}
			}
			lose(true)
			for e, gives := range both {
				until(t, "the loss", func() bool { return !e.Stats().Up })
				e.send(t, "held")
				if !gives {
					continue
				}
				if !e.Strand() {
					t.Error("nothing is given up")
				}
				e.send(t, "lost")
				if s := e.Stats(); s.Unacked != 0 || e.settled.Load() != e.Sent() {
					t.Errorf("%d bytes are unacknowledged, %d of %d datagrams settled", s.Unacked, e.settled.Load(), e.Sent())
				}
			}
			lose(false)
			for e, gave := range both {
				until(t, "another carrier", func() bool { return e.Stats().Up })
				e.send(t, "second")
				if !gave {
					other[e].expect(t, "held")
				}
				other[e].expect(t, "second")
			}
			for e := range both {
				until(t, "acknowledgement", func() bool { return e.Stats().Unacked == 0 && e.settled.Load() == e.Sent() })
			}
			lose(false)
			for e := range both {
				e.send(t, "third")
				other[e].expect(t, "third")
			}
		})
	}
}

// TestStrandLetsSendGo: what waits for room in the window goes, as everything else does until there is a carrier.
func TestStrandLetsSendGo(t *testing.T) {
	leaktest.Check(t)
	l := newEnd(Config{})
	sent := make(chan error, 1)
	go func() { // ends with what it sends, more than the window takes
		for range 2 * maxWindow / maxDatagram {
			if err := l.Send([][]byte{make([]byte, maxDatagram)}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	until(t, "a full window", func() bool { return l.Stats().Unacked > firstWindow-2*maxDatagram })
	l.Strand()
	linktest.Within(t, patience, "the end of Send", func() {
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
	l.Close()
	l.Strand()
	if s := l.Stats(); s.Unacked != 0 {
		t.Errorf("%d bytes are kept", s.Unacked)
	}
}
