package session

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// onTheWay begins a session whose pod is then lost by lose, and returns it once the next
// agent is there, which nobody has talked to. It goes on once StopAgent has been called;
// then is called before, under the cluster's lock.
func (l *lab) onTheWay(lose func(), then func(*fakeCluster)) *Session {
	l.t.Helper()
	s := l.start()
	placed := make(chan struct{})
	l.cluster.mu.Lock()
	l.cluster.placed = func() {
		l.cluster.placed = nil
		then(l.cluster)
		close(placed)
		select {
		case <-s.stopping:
		case <-time.After(time.Minute):
			l.t.Error("StopAgent is not called")
		}
	}
	l.cluster.mu.Unlock()
	lose()
	select {
	case <-placed:
	case <-time.After(time.Minute):
		l.t.Fatal("no agent is placed")
	}
	return s
}

// TestStopAgentOnTheWay: an agent that a session has placed in the next pod, and is not at
// yet, is told to end with it.
func TestStopAgentOnTheWay(t *testing.T) {
	for name, lose := range map[string]func(*lab){
		"new_pod":  func(l *lab) { l.cluster.roll(successor()) },
		"same_pod": func(l *lab) { l.cluster.breakCarriers(errors.New("the laptop sleeps")) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if name == "same_pod" {
				l.opener.Grace = 10 * time.Second // longer than the first carrier takes on a machine that is busy
			}
			s := l.onTheWay(func() { lose(l) }, func(c *fakeCluster) {
				c.cut = nil
				l.opener.Grace = 0 // the next carrier may take its time
			})
			if err := s.StopAgent(t.Context()); err != nil {
				t.Errorf("stop agent: %v", err)
			}
			if err := l.cluster.agent.Wait(time.Minute); err != nil {
				t.Errorf("the agent still runs: %v", err)
			}
			s.watching.Wait() // it looks for no other pod
			if st := s.Status(t.Context(), false).State; st != Reattaching {
				t.Errorf("it is %s again", st)
			}
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if left := keyFiles(t, l.opener.Keys); len(left) != 0 {
				t.Errorf("keys that no agent knows: %q", left)
			}
		})
	}
}

// TestStopAgentOutOfReach: who asks for the end of an agent that cannot be told hears so,
// and the session closes all the same.
func TestStopAgentOutOfReach(t *testing.T) {
	l := newLab(t)
	s := l.onTheWay(func() { l.cluster.roll(successor()) }, func(c *fakeCluster) { c.stuck = true })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := s.StopAgent(ctx)
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Code != fault.NoDataPath || f.Object != "the agent in container borrownet-test of pod shop/api-2" || !strings.Contains(f.Hint, "ends by itself 1m0s after") {
		t.Errorf("%+v", err)
	}
	begun := time.Now()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("close took %v", took)
	}
}

// TestStopAgentOfALostSession: it can be told only if it is there.
func TestStopAgentOfALostSession(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(*lab, *Session)
		want string
	}{
		{"pod_gone", func(l *lab, _ *Session) { l.cluster.roll(successor()) }, ""},
		{"agent_there", func(_ *lab, s *Session) { s.tunnel.Close() }, "stop the agent in container borrownet-test of pod shop/api-1: it is out of reach"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			o := l.opening()
			o.req.Stay = true
			s, err := o.Start(t.Context(), "api", l.observer())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			l.await(Ready)
			tt.lose(l, s)
			l.await(Lost)
			got := ""
			if err := s.StopAgent(t.Context()); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
