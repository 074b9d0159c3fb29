package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/netstack"
)

// ground is what a session has on the laptop. It stays when the session goes on at
// another pod: programs keep their namespace, their listeners and the sockets by which
// they are served.
type ground struct {
	name    string
	req     Request
	cluster cluster
	obs     Observer
	opener  *Opener
	since   time.Time
	life    context.Context // alive until Close
	end     context.CancelFunc
	now     atomic.Pointer[Session] // at the pod that is borrowed, or was last

	redirects *redirects
	watchers  watchers // of mirrored requests

	addrs    []netip.Addr   // of programs; only Start's goroutine uses it, and then watch's
	watching sync.WaitGroup // who waits for the loss of a pod and looks for the next
	stopOnce sync.Once
	stopping chan struct{}  // closed once no agent is wanted any more: only Close may follow
	tasks    sync.WaitGroup // what else runs until life ends

	// Set by the steps of the start, in this order; immutable from then on.
	stack   *netstack.Stack
	names   *nameservers
	fabric  *fabric
	locals  *locals
	files   files
	hook    Rung          // never hook.Auto
	note    string        // why hook is not a better one
	helper  *netns.Helper // nil if hook is a relayed one
	socket  string        // of the helper, or of the relay
	broker  string        // socket for the preload library
	board   string        // socket by which programs publish ports; "" if hook is a relayed one
	ports   *ports        // nil if hook is a relayed one
	endHook func()        // ends the relay; nil unless hook is a relayed one
	guests  *guests       // nil if containers cannot join

	telling sync.Mutex // held, and taken before mu, while the observer is told: he hears of changes in their order

	mu      sync.Mutex
	state   State
	problem *fault.Error   // guarded by mu: why it is not ready
	moved   *Move          // guarded by mu: the last one
	search  chan struct{}  // guarded by mu: closed when the way to another pod is over; nil if it is on none
	left    string         // guarded by mu: an agent that may run and has not been told to end, "" = none but that of now
	past    tally          // guarded by mu: of the tunnels that have ended
	closed  bool           // guarded by mu
	above   []func() error // guarded by mu: how to undo the steps that stand on the tunnel, in their order
	below   []func() error // guarded by mu: and those it stands on
}

// tally counts what went through tunnels.
type tally struct{ bytesIn, bytesOut, redials uint64 }

func newGround(o *Opening, name string, obs Observer) *ground {
	g := &ground{name: name, req: o.req, cluster: o.cluster, obs: obs, opener: o.opener, since: time.Now(), state: Connecting, redirects: newRedirects(o.req.Redirects), stopping: make(chan struct{})}
	g.life, g.end = context.WithCancel(context.Background())
	return g
}

// onEnd remembers how to undo a step that the tunnel does not need.
func (g *ground) onEnd(undo func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.above = append(g.above, undo)
}

// onEndLast remembers how to undo a step that the tunnel needs.
func (g *ground) onEndLast(undo func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.below = append(g.below, undo)
}

// step tells how the start goes on; later starts at other pods are for the log.
func (g *ground) step(log *slog.Logger) func(string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == Connecting {
		return g.obs.Step
	}
	return func(text string) { log.Info("session goes on", "step", text) }
}

// become changes the state and tells the observer. A lost session stays lost.
func (g *ground) become(state State, problem *fault.Error) {
	g.change(func(State) (State, *fault.Error) { return state, problem })
}

// change is become of what next returns, under mu, for the state until then.
func (g *ground) change(next func(State) (State, *fault.Error)) {
	g.telling.Lock()
	defer g.telling.Unlock()
	g.mu.Lock()
	if g.state == Lost || g.closed {
		g.mu.Unlock()
		return
	}
	state, problem := next(g.state)
	again := state == g.state && (problem == g.problem || problem != nil && g.problem != nil && problem.Error() == g.problem.Error())
	g.state, g.problem = state, problem
	g.mu.Unlock()
	if !again {
		g.obs.State(state, problem)
	}
}

// is reports whether the session is in one of the states.
func (g *ground) is(states ...State) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(states, g.state)
}

// Close gives the target back: the agent stays parked. It joins everything that
// the session started; later calls return net.ErrClosed.
func (g *ground) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.closed = true
	g.mu.Unlock()
	g.end()
	g.watching.Wait() // from now on it is at one pod, for good
	at := g.now.Load()
	errs := []error{g.undo(&g.above), at.retire(), at.leave(), g.undo(&g.below)}
	g.tasks.Wait()
	return errors.Join(errs...)
}

// undo undoes steps in reverse.
func (g *ground) undo(steps *[]func() error) error {
	g.mu.Lock()
	list := *steps
	*steps = nil
	g.mu.Unlock()
	var errs []error
	for _, f := range slices.Backward(list) {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
