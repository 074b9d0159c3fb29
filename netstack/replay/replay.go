// Package replay gives a local program what clients send to a live one: it makes
// streams of captured packets ([reassembly]), finds the requests in them, and does
// to the local program what the clients have done to the live one. The program's
// answers are discarded.
//
// HTTP/2 is delivered request by request too, each field and each byte of a body as it
// was, on a connection of its own framing and flow control: requests of a flow begin in
// the order of the live ones, and are under way together as those were.
//
// HTTP/1 is delivered request by request, in the order of its connection, each byte
// as it was; the next request of a connection waits for the answer to the one
// before, and a program that closes the connection after an answer gets a new one.
// A request that finds the connection closed before a byte of an answer came goes to a
// new one, once, if nothing of it was written or its method is safe and it has no body;
// any other is counted as broken, since the program may have acted on it.
// Everything else is delivered as a stream. What cannot be delivered whole is reset
// and counted, and an HTTP/1 connection is entered again at its next request.
//
// Nothing here can slow a capture: what finds no room is given up and counted,
// whole requests first.
//
// # Goroutines
//
// One per flow that has something for the local program, and one per connection to
// it; of HTTP/2, one per request. Close ends and joins all of them.
package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/reassembly"
	"github.com/borrownet/borrownet/netstack/relay"
)

// Config describes a Replayer.
type Config struct {
	// Ports are the mirrored ports, and the ports of the local program for them.
	Ports map[uint16]uint16
	// Servers are the addresses of the live program. Loopback is always one.
	Servers []netip.Addr
	// Dial connects to the local program.
	Dial func(ctx context.Context, c Call) (relay.Conn, error)
	// Select says which requests the local program gets.
	Select Selection
	// OnRequest is told what has become of each request that was not left out. It is
	// called by several goroutines and must not wait. It may be nil.
	OnRequest func(Request)
	// OnDifference is told of each delivered request how the local answer differs from
	// the live one, which the capture must have whole. It is called by several
	// goroutines and must not wait. Nil: answers are not compared.
	OnDifference func(Difference)
	// Ignore says what is not compared.
	Ignore Ignore
	// Wait makes Packet wait for a slow local program instead of giving up: for
	// captures that wait themselves.
	Wait bool
	// FlowBuffer bounds what waits for the local program, per flow; zero means 4 MiB.
	// Buffer bounds that of all flows together; zero means 64 MiB.
	FlowBuffer, Buffer int
	// MaxConns bounds the flows that are delivered at a time; zero means 4096.
	MaxConns int
	// Linger is how long the local program may go on with a flow that is over; zero
	// means one minute.
	Linger time.Duration
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// A Call is a connection that the local program is to get.
type Call struct {
	// Client is who has called the live program.
	Client netip.AddrPort
	// Server is where the live program was called, with the local program's port.
	Server netip.AddrPort
	// Again reports that the local program has ended an earlier one for the same flow:
	// the client's port may be in TIME_WAIT.
	Again bool
}

// Request is what has become of a mirrored request.
type Request struct {
	Time   time.Time      `json:"time"` // when the live server had taken its head
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
	Method string         `json:"method"`
	Target string         `json:"target"`
	Host   string         `json:"host,omitempty"`
	Bytes  uint64         `json:"bytes"`            // delivered; of HTTP/2, those of the body
	Status int            `json:"status,omitempty"` // of the local program's answer; 0 = none
	Fate   string         `json:"fate"`
}

// A Replayer gives a local program what a capture shows.
type Replayer struct {
	cfg      Config
	log      *slog.Logger
	ctx      context.Context // alive until Close
	cancel   context.CancelFunc
	flows    *reassembly.Assembler // but for its Stats guarded by mu
	selector selector              // guarded by mu
	now      time.Time             // of the packet at hand; guarded by mu
	counts   counters
	budget   budget
	rest     atomic.Int64 // until when nobody is dialled, in Unix nanoseconds
	problem  atomic.Pointer[string]
	playing  atomic.Int64
	wg       sync.WaitGroup // players

	mu     sync.Mutex // held while Packet waits
	closed bool       // guarded by mu

	playersMu sync.Mutex
	players   map[*queue]struct{} // guarded by playersMu
}

var _ mirror.Replayer = (*Replayer)(nil)

// New returns a Replayer.
func New(cfg Config) (*Replayer, error) {
	if len(cfg.Ports) == 0 || cfg.Dial == nil {
		return nil, errors.New("make replayer: no port or nobody to dial")
	}
	if cfg.FlowBuffer <= 0 {
		cfg.FlowBuffer = 4 << 20
	}
	if cfg.Buffer <= 0 {
		cfg.Buffer = 64 << 20
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 4096
	}
	if cfg.Linger <= 0 {
		cfg.Linger = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Replayer{cfg: cfg, log: cfg.Logger, selector: selector{Selection: cfg.Select}, players: map[*queue]struct{}{}}
	r.budget.max, r.budget.room = int64(cfg.Buffer), make(chan struct{}, 1)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.flows = reassembly.New(reassembly.Config{Server: r.isServer, Open: r.open, MaxHeld: cfg.FlowBuffer})
	return r, nil
}

func (r *Replayer) isServer(a netip.AddrPort) bool {
	if _, ok := r.cfg.Ports[a.Port()]; !ok {
		return false
	}
	return a.Addr().IsLoopback() || slices.Contains(r.cfg.Servers, a.Addr())
}

// told is what there is to tell of a request before its fate is known.
func (q *request) told(f flow.Flow) Request {
	return Request{Time: q.at, Client: f.Src, Server: f.Dst, Method: q.method, Target: q.target, Host: q.host}
}

// exchange prepares to compare the answers to a request.
func (r *Replayer) exchange(q *request, f flow.Flow) *exchange {
	told := q.told(f)
	return &exchange{compare: func(live, local *Answer) {
		told.Status = local.Status
		r.cfg.OnDifference(Difference{Request: told, Live: *live, Local: *local, Differs: compare(live, local, &r.cfg.Ignore)})
	}}
}

// settle notes what has become of a request of which the local program got n bytes,
// and its answer, nil if there is none.
func (r *Replayer) settle(q *request, f flow.Flow, n uint64, what fate, a *Answer) {
	r.counts.requests.count(what)
	if a == nil {
		a = &Answer{Missing: what.String()}
		if what == delivered {
			a.Missing = "no answer"
		}
	}
	if r.cfg.OnRequest != nil {
		told := q.told(f)
		told.Bytes, told.Status, told.Fate = n, a.Status, what.String()
		r.cfg.OnRequest(told)
	}
	q.exchange.answered(localSide, a)
}

// open begins a flow.
func (r *Replayer) open(f flow.Flow, whole bool, _ time.Time) (client, server reassembly.Stream) {
	in := &inlet{r: r, flow: f}
	if r.cfg.OnDifference != nil {
		in.live = &outlet{}
		server = in.live
	}
	if whole {
		r.counts.opened.Add(1)
	} else {
		r.counts.before.Add(1)
		in.phase = waiting
	}
	return in, server
}

// Packet implements mirror.Replayer.
func (r *Replayer) Packet(p mirror.Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.now = p.Time
	r.flows.Packet(p)
}

// Lost implements mirror.Replayer.
func (r *Replayer) Lost(l mirror.Lost) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if l.Flow == (flow.Flow{}) {
		r.counts.kernelDrops.Add(l.Packets)
		r.counts.lostBytes.Add(l.Bytes)
		return
	}
	r.counts.lostPackets.Add(l.Packets)
	r.counts.lostBytes.Add(l.Bytes)
	r.flows.Lost(l.Flow)
}

// fits reports whether q has room for n more bytes. If the capture waits, so does
// it.
func (r *Replayer) fits(q *queue, n int) bool {
	for !q.fits(n) {
		if !r.cfg.Wait {
			return false
		}
		select {
		case <-r.budget.room:
		case <-r.ctx.Done():
			return false
		}
	}
	return true
}

// play returns the queue of a new player of f, nil if there are too many.
func (r *Replayer) play(f flow.Flow) *queue {
	if r.playing.Load() >= int64(r.cfg.MaxConns) {
		return nil
	}
	q := newQueue(&r.budget, r.cfg.FlowBuffer)
	p := &player{r: r, flow: f, in: q}
	r.playing.Add(1)
	r.playersMu.Lock()
	r.players[q] = struct{}{}
	r.playersMu.Unlock()
	r.wg.Go(func() {
		p.run()
		r.playersMu.Lock()
		delete(r.players, q)
		r.playersMu.Unlock()
		r.playing.Add(-1)
	})
	return q
}

// Stats returns the counts so far.
func (r *Replayer) Stats() Stats {
	s := r.counts.load()
	s.Stats = r.flows.Stats()
	s.Held = r.budget.held.Load()
	if p := r.problem.Load(); p != nil {
		s.Problem = *p
	}
	return s
}

// Drain ends all flows, as if their clients had gone, and waits until the local
// program has got what there is, or ctx ends.
func (r *Replayer) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.flows.Close()
	r.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the players, which Close ends
		r.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("deliver what is left: %w", context.Cause(ctx))
	}
}

// Close implements mirror.Replayer: connections to the local program are reset.
func (r *Replayer) Close() error {
	r.cancel() // Packet may wait
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return net.ErrClosed
	}
	r.closed = true
	r.flows.Close()
	r.mu.Unlock()
	r.playersMu.Lock()
	for q := range r.players {
		q.stop()
	}
	r.playersMu.Unlock()
	r.wg.Wait()
	return nil
}
