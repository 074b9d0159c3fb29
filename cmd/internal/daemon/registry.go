package daemon

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// registry holds the sessions by name, and counts what keeps the daemon alive.
type registry struct {
	changed chan struct{} // buffered 1: the daemon may have become idle

	mu      sync.Mutex
	entries map[string]*entry
	busy    int  // requests in flight
	opening int  // of them, those for a session that has no name yet
	closed  bool // no new requests: the daemon ends
}

// entry is a session from the choice of its name to its end.
type entry struct {
	name   string
	cancel context.CancelCauseFunc // aborts the start, ends the owner's stream
	ctx    context.Context         // done once somebody wants the session to end
	gone   chan struct{}           // closed when the name is free again

	mu      sync.Mutex
	session Session // nil while it starts
	state   session.State
	problem *fault.Error
	watch   chan StateEvent // of the owner; nil without one
}

var (
	errClosing = errors.New("the daemon is ending")
	errDowned  = errors.New("ended by borrownet down")
)

func newRegistry() *registry {
	return &registry{changed: make(chan struct{}, 1), entries: map[string]*entry{}}
}

// enter counts a request in; it reports false when the daemon is ending.
func (r *registry) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.busy++
	return true
}

func (r *registry) leave() {
	r.mu.Lock()
	r.busy--
	r.mu.Unlock()
	r.notify()
}

func (r *registry) notify() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// idle reports whether nothing needs the daemon.
func (r *registry) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.busy == 0 && len(r.entries) == 0
}

// open counts the requests for a session that has no name yet.
func (r *registry) open(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opening += n
}

// ending returns this process's id if the daemon ends once its requests have
// been answered, else 0.
func (r *registry) ending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opening > 0 || len(r.entries) > 0 {
		return 0
	}
	return os.Getpid()
}

// shut refuses new requests from now on.
func (r *registry) shut() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
}

// reserve takes name for a new session. taken is the entry that has it, if any.
func (r *registry) reserve(ctx context.Context, name string) (fresh, taken *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.entries[name]; old != nil {
		return nil, old
	}
	e := &entry{name: name, gone: make(chan struct{}), state: session.Connecting}
	e.ctx, e.cancel = context.WithCancelCause(ctx)
	r.entries[name] = e
	return e, nil
}

// drop frees e's name.
func (r *registry) drop(e *entry) {
	r.mu.Lock()
	delete(r.entries, e.name)
	r.mu.Unlock()
	close(e.gone)
	r.notify()
}

func (r *registry) get(name string) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[name]
}

// all returns the entries by name.
func (r *registry) all() []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*entry
	for _, name := range slices.Sorted(maps.Keys(r.entries)) {
		out = append(out, r.entries[name])
	}
	return out
}

// started makes s the session of e.
func (e *entry) started(s Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.session = s
}

// current returns the session, nil while it starts.
func (e *entry) current() Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.session
}

// observe records a change of state and passes it to the owner, who sees the
// latest if he is slow.
func (e *entry) observe(state session.State, problem *fault.Error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state, e.problem = state, problem
	if e.watch == nil {
		return
	}
	select {
	case <-e.watch: // an older change that nobody has read
	default:
	}
	e.watch <- StateEvent{State: state, Problem: problem}
}

// watcher returns the channel of later changes.
func (e *entry) watcher() <-chan StateEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watch = make(chan StateEvent, 1)
	return e.watch
}

func (e *entry) lost() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state == session.Lost
}

// status reports on e in whatever state it is.
func (e *entry) status(ctx context.Context, measure bool) session.Status {
	s := e.current()
	if s == nil {
		return session.Status{Session: e.name, State: session.Connecting}
	}
	return s.Status(ctx, measure)
}
