package daemon

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// TestFollow: everybody who uses a session hears what happens to it.
func TestFollow(t *testing.T) {
	h := newHouse(t)
	h.mustUp("api", false)
	heard := make(chan StateEvent, 32)
	over := make(chan error, 2)
	for range 2 {
		go func() {
			over <- h.client.Follow(t.Context(), "api", func(ev StateEvent) { heard <- ev })
		}()
	}
	next := func() StateEvent {
		select {
		case ev := <-heard:
			return ev
		case <-time.After(time.Minute):
			t.Fatal("nothing is heard")
		}
		return StateEvent{}
	}
	for range 2 { // how it is
		next()
	}
	s := h.opener.session("api")
	s.observe(session.Reattaching, &fault.Error{Code: fault.NoDataPath, Op: "keep session", Object: "api", Reason: "the pod is gone"})
	s.observe(session.Ready, nil)
	s.moved(session.Move{From: "api-1", To: "api-2"})
	got := map[string]int{}
	for range 6 {
		switch ev := next(); {
		case ev.Moved != nil:
			got["moved to "+ev.Moved.To]++
		case ev.Problem != nil:
			got[string(ev.State)+": "+ev.Problem.Reason]++
		default:
			got[string(ev.State)]++
		}
	}
	want := map[string]int{"reattaching: the pod is gone": 2, "ready": 2, "moved to api-2": 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := h.client.Down(t.Context(), "api", false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-over; err != nil {
			t.Errorf("follow ends with %v", err)
		}
	}
	if err := h.client.Follow(t.Context(), "api", nil); err == nil {
		t.Error("a session that is gone is followed")
	}
}

// TestLastWords: what happened last is told before the end, whichever of them the stream finds first.
func TestLastWords(t *testing.T) {
	for range 50 {
		e, _ := newRegistry().reserve(t.Context(), "api")
		changes, stop := e.watch()
		e.observe(session.Reattaching, nil)
		e.observe(session.Lost, nil)
		e.cancel(errDowned)
		close(e.gone)
		w := httptest.NewRecorder()
		tell(t.Context(), e, newStream(w), changes)
		stop()
		var got []string
		for d := json.NewDecoder(w.Body); d.More(); {
			var ev Event
			if err := d.Decode(&ev); err != nil {
				t.Fatal(err)
			}
			if ev.State != nil {
				got = append(got, string(ev.State.State))
			}
			if ev.Ended != "" {
				got = append(got, ev.Ended)
			}
		}
		if diff := cmp.Diff([]string{"reattaching", "lost", errDowned.Error()}, got); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	}
}

// TestSettled: who wants to run something waits for a session that is between two pods.
func TestSettled(t *testing.T) {
	e, _ := newRegistry().reserve(t.Context(), "api")
	e.started(&fakeSession{name: "api"})
	problem := &fault.Error{Code: fault.NoDataPath, Reason: "looking"}
	for _, tt := range []struct {
		name   string
		then   session.State
		wanted *fault.Error
	}{{"ready", session.Ready, nil}, {"lost", session.Lost, problem}} {
		t.Run(tt.name, func(t *testing.T) {
			e.observe(session.Reattaching, problem)
			got := make(chan *fault.Error, 1)
			go func() {
				_, f := e.settled(t.Context())
				got <- f
			}()
			for waits := false; !waits; runtime.Gosched() {
				e.mu.Lock()
				waits = len(e.watchers) == 1
				e.mu.Unlock()
			}
			e.observe(tt.then, tt.wanted)
			if f := <-got; f != tt.wanted {
				t.Errorf("got %v", f)
			}
		})
	}
	t.Run("caller_leaves", func(t *testing.T) {
		e.observe(session.Reattaching, problem)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, f := e.settled(ctx); f != problem {
			t.Errorf("got %v", f)
		}
	})
}
