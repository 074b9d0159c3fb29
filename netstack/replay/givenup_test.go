package replay

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/relay"
)

// pipes is a listener in memory, so that a program can be in a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _ Call) (relay.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return pipe{near}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipe is one end of a connection in memory, which has no half to close.
type pipe struct{ net.Conn }

func (p pipe) CloseWrite() error { return p.Close() }

// piped runs a local program that speaks HTTP/2 in the test's bubble until the test ends.
func piped(t *testing.T, handle http.HandlerFunc) *pipes {
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Protocols: new(http.Protocols), Handler: handle}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(p) }() // until Close; the bubble waits for it
	t.Cleanup(func() { srv.Close() })
	return p
}

// TestGivenUpIsForgotten: of requests that their client gives up nothing is kept for the
// live answer, which will not come, and each is told of at once: whether the program has
// answered, has not, or got half of it, and while the connection goes on.
func TestGivenUpIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds, each = 5, 2 * minCrowd
		p := piped(t, func(_ http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/watch") {
				<-r.Context().Done()
			}
		})
		var givenUp, answered atomic.Int32 // told of, by the live answer
		r := replaying(t, nil, Config{Dial: p.dial, OnDifference: func(d Difference) {
			switch {
			case d.Live.Missing == "given up by its client":
				givenUp.Add(1)
			case d.Live.Status == http.StatusNoContent:
				answered.Add(1)
			default:
				t.Errorf("told of the live answer %+v", d.Live)
			}
		}})
		in, out := r.open(flow.Flow{Proto: flow.TCP, Src: client, Dst: server}, true, time.Time{})
		live := out.(*outlet)
		defer func() {
			in.End(false)
			out.End(false)
		}()
		ask, answer := newSide(), newSide()
		in.Data([]byte(ask.hello()), true)
		stream := uint32(1)
		for round := range rounds {
			first := stream
			for i := range each {
				switch i % 3 {
				case 0:
					in.Data([]byte(ask.ask(stream, true, "GET", "/quick")), true)
				case 1:
					in.Data([]byte(ask.ask(stream, true, "GET", "/watch")), true)
				case 2:
					in.Data([]byte(ask.ask(stream, false, "POST", "/half")+ask.body(stream, false, "half")), true)
				}
				stream += 2
				synctest.Wait() // the program has answered what it answers
			}
			if n := len(live.many.asked); n != each {
				t.Fatalf("round %d: %d answers are waited for, want %d", round, n, each)
			}
			for s := first; s < stream; s += 2 {
				in.Data([]byte(ask.reset(s)), true)
			}
			synctest.Wait()
			if n, open := len(live.many.asked), len(in.(*inlet).many.open); n > 0 || open > 0 {
				t.Fatalf("round %d: %d answers are waited for and %d requests kept that were given up", round, n, open)
			}
			if n := givenUp.Load(); n != int32(round+1)*each {
				t.Fatalf("round %d: told of %d that were given up, want %d", round, n, (round+1)*each)
			}
		}
		in.Data([]byte(ask.ask(stream, true, "GET", "/quick")), true)
		live.Data([]byte(answer.head(stream, true, ":status", "204")), true)
		in.Data([]byte(ask.reset(stream)), true) // too late
		in.Data([]byte(ask.reset(stream+2)), true)
		synctest.Wait()
		if a, g := answered.Load(), givenUp.Load(); a != 1 || g != rounds*each {
			t.Errorf("told of %d that were answered and %d that were given up", a, g)
		}
	})
}

// TestGivenUpKeepsOrder: a request that is given up before it was its turn does not let those behind it pass those in front
// of it: they would call the program at the same time.
func TestGivenUpKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := piped(t, func(http.ResponseWriter, *http.Request) {})
		var dials atomic.Int32
		answers := make(chan struct{})
		r := replaying(t, nil, Config{Dial: func(ctx context.Context, call Call) (relay.Conn, error) {
			dials.Add(1)
			<-answers
			return p.dial(ctx, call)
		}})
		in, _ := r.open(flow.Flow{Proto: flow.TCP, Src: client, Dst: server}, true, time.Time{})
		defer in.End(false)
		ask := newSide()
		in.Data([]byte(ask.hello()+ask.ask(1, true, "GET", "/1")+ask.ask(3, false, "POST", "/3")+ask.ask(5, true, "GET", "/5")), true)
		in.Data([]byte(ask.reset(3)), true)
		synctest.Wait()
		if n, got := dials.Load(), r.Stats().Requests; n != 1 || got != (Outcomes{Seen: 3, Cut: 1}) {
			t.Errorf("while the first request waits: %d calls, requests %+v", n, got)
		}
		close(answers)
		synctest.Wait()
		if n, got := dials.Load(), r.Stats().Requests; n != 1 || got != (Outcomes{Seen: 3, Delivered: 2, Cut: 1}) {
			t.Errorf("in the end: %d calls, requests %+v", n, got)
		}
	})
}
