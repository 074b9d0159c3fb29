package daemon

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

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
	begun  chan struct{}           // closed when there is a session
	gone   chan struct{}           // closed when the name is free again

	mu       sync.Mutex
	session  Session // nil while it starts
	state    session.State
	problem  *fault.Error
	watchers map[chan StateEvent]bool
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
	e := &entry{name: name, begun: make(chan struct{}), gone: make(chan struct{}), state: session.Connecting, watchers: map[chan StateEvent]bool{}}
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
	close(e.begun)
}

// stopAgent ends the agent of the session, once there is one.
func (e *entry) stopAgent(ctx context.Context) error {
	select {
	case <-e.begun:
		return e.current().StopAgent(ctx)
	case <-e.gone:
		return nil // who wanted it hears why
	case <-ctx.Done():
	}
	return &fault.Error{Code: fault.NoDataPath, Op: "stop", Object: "the agent that session " + e.name + " may be placing", Reason: "it cannot be told yet",
		Hint: "it ends by itself 15m0s after it has started, or when up --idle-ttl says"}
}

// current returns the session, nil while it starts.
func (e *entry) current() Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.session
}

// observe records a change of state and tells who watches.
func (e *entry) observe(state session.State, problem *fault.Error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state, e.problem = state, problem
	e.tellLocked(StateEvent{State: state, Problem: problem})
}

// moved tells who watches that the session goes on at another pod.
func (e *entry) moved(m session.Move) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tellLocked(StateEvent{State: e.state, Moved: &m})
}

// tellLocked sends ev to who watches; who is slow loses the oldest that he has not read.
func (e *entry) tellLocked(ev StateEvent) {
	for w := range e.watchers {
		select {
		case w <- ev:
		default:
			select {
			case <-w:
			default: // it was read meanwhile
			}
			w <- ev // only here it is written to, under mu
		}
	}
}

// maxUnread bounds the changes that wait for who watches.
const maxUnread = 16

// watch returns the channel of later changes, until stop is called.
func (e *entry) watch() (changes <-chan StateEvent, stop func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := make(chan StateEvent, maxUnread)
	e.watchers[w] = true
	return w, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, w)
	}
}

func (e *entry) lost() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state == session.Lost
}

// settled returns the session, nil while it starts, and why it cannot be used. It waits a
// while for one that is between two pods.
func (e *entry) settled(ctx context.Context) (Session, *fault.Error) {
	changes, stop := e.watch()
	defer stop()
	limit := time.NewTimer(settleWait)
	defer limit.Stop()
	for {
		e.mu.Lock()
		sess, state, problem := e.session, e.state, e.problem
		e.mu.Unlock()
		switch state {
		case session.Lost:
			return sess, problem
		case session.Reattaching:
		default:
			return sess, nil
		}
		select {
		case <-changes:
		case <-limit.C:
			return sess, problem
		case <-ctx.Done():
			return sess, problem
		}
	}
}

// status reports on e in whatever state it is.
func (e *entry) status(ctx context.Context, measure bool) session.Status {
	s := e.current()
	if s == nil {
		return session.Status{Session: e.name, State: session.Connecting}
	}
	return s.Status(ctx, measure)
}
