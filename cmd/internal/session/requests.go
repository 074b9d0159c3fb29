package session

import (
	"context"
	"fmt"
	"sync"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/replay"
)

// Selection says which of the requests that are mirrored the local program gets. The
// zero value is all but health probes.
type Selection struct {
	Filters   []string `json:"filters,omitempty"`   // as replay.ParseFilter takes them; all must match
	Percent   float64  `json:"percent,omitempty"`   // of those, by chance; 0 = all
	PerSecond float64  `json:"perSecond,omitempty"` // of those, at most; 0 = no bound
	Probes    bool     `json:"probes,omitempty"`    // health probes too
}

// parse returns s for a replayer.
func (s Selection) parse() (replay.Selection, error) {
	out := replay.Selection{Percent: s.Percent, PerSecond: s.PerSecond, Probes: s.Probes}
	for _, text := range s.Filters {
		f, err := replay.ParseFilter(text)
		if err != nil {
			return out, fmt.Errorf("select requests: %w", err)
		}
		out.Filters = append(out.Filters, f)
	}
	return out, nil
}

// watcherQueue is how many requests wait for one watcher. What does not fit is counted.
const watcherQueue = 1024

// MirroredRequest is what has become of a request that was mirrored.
type MirroredRequest struct {
	replay.Request
	// Missed counts the requests before this one that were too many to tell.
	Missed uint64 `json:"missed,omitempty"`
}

// watchers are told what becomes of mirrored requests. The zero value is ready to use.
type watchers struct {
	mu  sync.Mutex
	all map[*watcher]struct{}
}

// A watcher is one of them.
type watcher struct {
	c      chan MirroredRequest
	missed uint64 // guarded by watchers.mu
}

// tell tells all watchers, and waits for none.
func (w *watchers) tell(r replay.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for to := range w.all {
		select {
		case to.c <- MirroredRequest{r, to.missed}:
			to.missed = 0
		default:
			to.missed++
		}
	}
}

// add returns a new watcher. The caller removes it.
func (w *watchers) add() *watcher {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[*watcher]struct{})
	}
	to := &watcher{c: make(chan MirroredRequest, watcherQueue)}
	w.all[to] = struct{}{}
	return to
}

func (w *watchers) remove(to *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, to)
}

// WatchRequests calls begin, and then tell with what becomes of each mirrored request
// from then on, until ctx or the session ends, or tell fails.
func (s *Session) WatchRequests(ctx context.Context, begin func(), tell func(MirroredRequest) error) error {
	if len(s.req.Mirror) == 0 {
		return &fault.Error{
			Code: fault.Usage, Op: "watch the requests of", Object: "session " + s.name, Reason: "it mirrors no port",
			Hint: fmt.Sprintf("borrownet down %s && borrownet up --pod %s --mirror PORT", s.name, s.req.Ref),
		}
	}
	w := s.watchers.add()
	defer s.watchers.remove(w)
	begin()
	for {
		select {
		case r := <-w.c:
			if err := tell(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-s.life.Done():
			return nil
		}
	}
}
