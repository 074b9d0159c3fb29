package replay

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/borrownet/borrownet/netstack/flow"
)

// shared is the local program's end of an HTTP/2 flow: a connection, which the requests
// of the flow share. When the program does not take more requests on it the next
// one gets a new connection.
type shared struct {
	r         *Replayer
	flow      flow.Flow
	transport http.Transport
	begun     chan struct{} // closed when the head of the latest request was written, or never will be; used by the goroutine that has the packets
	dialed    bool          // there was a connection; used by the delivery whose turn it is

	spoke atomic.Bool // the program has answered in HTTP/2

	mu    sync.Mutex
	conns []*http.ClientConn // guarded by mu; the last one is for the next request
	spent *http.ClientConn   // guarded by mu; of conns, one that takes no more requests
	users int                // guarded by mu; who may still use a connection
}

func newShared(r *Replayer, f flow.Flow) *shared {
	s := &shared{r: r, flow: f, begun: make(chan struct{}), users: 1}
	close(s.begun)
	s.transport = http.Transport{DisableCompression: true, Protocols: new(http.Protocols), DialContext: s.dial}
	s.transport.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// refusal is why the local program could not be connected to.
type refusal struct{ error }

func (s *shared) dial(context.Context, string, string) (net.Conn, error) {
	c, err := s.r.dial(Call{Client: s.flow.Src, Server: s.flow.Dst, Again: s.dialed})
	if err != nil {
		return nil, refusal{err}
	}
	s.dialed = true
	return c, nil
}

// connect returns a connection that takes requests. One delivery at a time calls it, in
// the order of their heads.
func (s *shared) connect(ctx context.Context) (*http.ClientConn, error) {
	s.mu.Lock()
	var latest *http.ClientConn
	if n := len(s.conns); n > 0 && s.conns[n-1] != s.spent {
		latest = s.conns[n-1]
	}
	s.mu.Unlock()
	if latest != nil && latest.Err() == nil {
		return latest, nil
	}
	c, err := s.transport.NewClientConn(ctx, "http", anyHost)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(s.conns, func(old *http.ClientConn) bool {
		idle := old.InFlight() == 0
		if idle {
			_ = old.Close() // nothing is on it
		}
		return idle
	})
	s.conns = append(s.conns, c)
	return c, nil
}

// spend reports whether c, which refused a request, takes no more: it was closed, or the
// program said so and still answers earlier requests (GOAWAY, RFC 9113 §6.8). The next
// request gets a new connection then.
func (s *shared) spend(c *http.ClientConn) bool {
	if c.Err() == nil && c.Available() > 0 {
		return false // it is the request
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent = c
	return true
}

// anyHost is where requests go as the transport sees it: dial knows better.
const anyHost = "program:80"

// deliver begins to give the local program a request. Its body comes later, unless ended.
func (s *shared) deliver(q *request, head *http.Request, ended bool) *delivery {
	d := &delivery{r: s.r, flow: s.flow, now: q, head: head, to: s, before: s.begun, begun: make(chan struct{}), done: make(chan struct{}), ended: ended}
	d.ctx, d.cancel = context.WithCancel(s.r.ctx)
	if !ended {
		d.body = newQueue(&s.r.budget, s.r.cfg.FlowBuffer)
	}
	s.begun = d.begun
	s.mu.Lock()
	s.users++
	s.mu.Unlock()
	s.r.playing.Add(1)
	s.r.wg.Go(func() {
		d.run()
		s.r.playing.Add(-1)
		<-d.before // one that was given up early passes its turn on when it has got it
		d.pass()
	})
	return d
}

// release says that one less uses the connection. With the last user it is closed.
func (s *shared) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	for _, c := range s.conns {
		_ = c.Close() // what it could say is of no use
	}
	s.conns = nil
}
