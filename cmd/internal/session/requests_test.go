package session

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/replay"
)

// TestWatchersAreNotWaitedFor counts what a watcher does not take in time.
func TestWatchersAreNotWaitedFor(t *testing.T) {
	var w watchers
	w.tell(replay.Request{}) // nobody watches
	slow := w.add()
	for i := range watcherQueue + 5 {
		w.tell(replay.Request{Target: fmt.Sprint(i)})
	}
	for i := range watcherQueue {
		if r := <-slow.c; r.Target != fmt.Sprint(i) || r.Missed != 0 {
			t.Fatalf("request %d is %+v", i, r)
		}
	}
	w.tell(replay.Request{Target: "next"})
	if r := <-slow.c; r.Target != "next" || r.Missed != 5 {
		t.Errorf("after a pause: %+v", r)
	}
	w.remove(slow)
	w.tell(replay.Request{})
	if len(slow.c) != 0 {
		t.Error("told after it was removed")
	}
}

func TestWatchRequests(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &Session{ground: &ground{name: "api", life: ctx, req: Request{Ref: "deploy/api"}}}
	err := s.WatchRequests(t.Context(), func() { t.Error("it begins") }, nil)
	if f := fault.From(err); f == nil || f.Hint != "borrownet down api && borrownet up --pod deploy/api --mirror PORT" {
		t.Errorf("without a mirrored port: %v", err)
	}
	s.req.Mirror = []Mirror{{Port: 80, To: 80}}
	begin := func() { s.watchers.tell(replay.Request{Target: "/a"}) }
	gone := errors.New("gone")
	if err := s.WatchRequests(t.Context(), begin, func(r MirroredRequest) error { return fmt.Errorf("%s: %w", r.Target, gone) }); !errors.Is(err, gone) || err.Error() != "/a: gone" {
		t.Errorf("a client that leaves: %v", err)
	}
	if err := s.WatchRequests(t.Context(), begin, func(MirroredRequest) error { cancel(); return nil }); err != nil {
		t.Errorf("a session that ends: %v", err)
	}
}

func TestSelectionParse(t *testing.T) {
	got, err := Selection{Filters: []string{"method=GET", "!path=/a"}, Percent: 5, PerSecond: 7, Probes: true}.parse()
	if err != nil || len(got.Filters) != 2 || got.Filters[1].String() != "!path=/a" || got.Percent != 5 || got.PerSecond != 7 || !got.Probes {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := (Selection{Filters: []string{"bad"}}).parse(); err == nil {
		t.Error("a bad filter is one")
	}
}
