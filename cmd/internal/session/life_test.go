package session

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// loseLink breaks every carrier and returns once the session knows that it has none for calls.
func (l *lab) loseLink() {
	l.t.Helper()
	known, once := make(chan struct{}), sync.Once{}
	l.cluster.mu.Lock()
	l.cluster.refused = func(use kube.Use) {
		if use == kube.ForCalls {
			once.Do(func() { close(known) })
		}
	}
	l.cluster.mu.Unlock()
	l.cluster.breakCarriers(errors.New("connection refused"))
	select {
	case <-known:
	case <-time.After(time.Minute):
		l.t.Error("no carrier is dialled")
	}
}

// mend lets carriers be dialled again.
func (l *lab) mend() {
	l.cluster.mu.Lock()
	defer l.cluster.mu.Unlock()
	l.cluster.cut = nil
}

// next is the next state that the session tells.
func (l *lab) next() State {
	l.t.Helper()
	select {
	case s := <-l.states:
		return s
	case <-time.After(time.Minute):
		l.t.Fatal("the session tells no state")
		return ""
	}
}

// TestArrivesWithoutLink: a session that loses its link while it starts, or on the last steps to another pod, is not said to be
// ready before it has it again.
func TestArrivesWithoutLink(t *testing.T) {
	check := func(t *testing.T, l *lab, s *Session) {
		t.Helper()
		if got := l.next(); got != Reconnecting {
			t.Errorf("state %s, want %s", got, Reconnecting)
		}
		if st := s.Status(t.Context(), false); st.State != Reconnecting || st.Problem == nil || st.Problem.Code != fault.NoDataPath {
			t.Errorf("status %s, %v", st.State, st.Problem)
		}
		l.mend()
		l.await(Ready)
		if st := s.Status(t.Context(), true); st.State != Ready || st.Problem != nil || st.RoundTrip == 0 {
			t.Errorf("status %+v", st)
		}
	}
	t.Run("start", func(t *testing.T) {
		l := newLab(t)
		obs := l.observer()
		obs.Step = func(text string) {
			if text == "making the session's network namespace" { // after the agent has answered
				l.loseLink()
			}
		}
		s, err := l.opening().Start(t.Context(), "api", obs)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		check(t, l, s)
	})
	t.Run("move", func(t *testing.T) {
		l := newLab(t)
		s := l.start()
		s.become(Reattaching, nil)
		l.await(Reattaching)
		l.loseLink()
		s.settle(context.Background(), s, "the pod is gone")
		check(t, l, s)
	})
}

// TestLostWithoutKey: who hears that a session is lost, because its agent is gone, finds its key forgotten.
func TestLostWithoutKey(t *testing.T) {
	l := newLab(t)
	keys := func() []string {
		m, err := l.opener.Dir.Memory()
		if err != nil {
			t.Skipf("needs a place in memory: %v", err)
		}
		paths, err := filepath.Glob(m.Path("*" + keySuffix))
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	left := make(chan []string, 1)
	obs := l.observer()
	obs.State = func(s State, _ *fault.Error) {
		if s == Lost {
			left <- keys()
		}
		l.states <- s
	}
	o := l.opening()
	o.req.Stay = true
	s, err := o.Start(t.Context(), "api", obs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	l.await(Ready)
	if got := keys(); len(got) != 1 {
		t.Fatalf("keys %q, want one", got)
	}
	l.cluster.roll(successor())
	l.await(Lost)
	if got := <-left; len(got) != 0 {
		t.Errorf("keys %q are left", got)
	}
}
