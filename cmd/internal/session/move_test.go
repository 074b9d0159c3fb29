package session

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
)

var (
	nextIP  = netip.MustParseAddr("198.51.100.99")
	nextIP6 = netip.MustParseAddr("2001:db8::99")
)

// successor is the pod that takes the place of the tests' one.
func successor() *kube.Target {
	return &kube.Target{Context: "test", Namespace: "shop", Pod: "api-2", UID: "u2", Container: "app", Node: "n2", Workload: "deploy/api",
		PodIPs: []netip.Addr{nextIP, nextIP6}, Ready: true, Env: kube.Environment{Names: []string{"GREETING", "POD_NAME"}}}
}

// localOf is the address that a connected socket has.
func localOf(t *testing.T, fd uintptr) netip.Addr {
	t.Helper()
	name, err := unix.Getsockname(int(fd))
	if err != nil {
		t.Fatal(err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr).Unmap()
	}
	t.Fatalf("socket name %T", name)
	return netip.Addr{}
}

// TestGoesOnAtASuccessor deletes the pod under a session with programs in every state.
func TestGoesOnAtASuccessor(t *testing.T) {
	l := newLab(t)
	moves := make(chan Move, 1)
	obs := l.observer()
	obs.Moved = func(m Move) { moves <- m }
	s, err := l.opening().Start(t.Context(), "api", obs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	l.await(Ready)
	p := newProgram(t, s)

	// A flow that nobody sends on, one per family; a listener on all addresses; a socket
	// without an address yet.
	idle, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, idle, "before")
	idle6, err := p.connect(orders6, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	listener := p.socket(netip.MustParseAddrPort("0.0.0.0:0"), unix.SOCK_STREAM)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrInet4{}), unix.Listen(listener, 1)); err != nil {
		t.Fatal(err)
	}
	early := p.socket(orders, unix.SOCK_STREAM)
	control, err := l.stackConn(s)
	if err != nil {
		t.Fatal(err)
	}

	l.cluster.mu.Lock()
	l.cluster.env = []string{"POD_NAME=api-2"}
	l.cluster.mu.Unlock()
	begun := time.Now()
	l.cluster.roll(successor())
	l.await(Reattaching)
	for name, f := range map[string]interface{ Read([]byte) (int, error) }{"idle": idle, "idle6": idle6} {
		if _, err := f.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s flow: %v, want ECONNRESET", name, err)
		}
	}
	control.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := control.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("flow of the client's own stack: %v, want ECONNABORTED", err)
	}
	l.await(Ready)
	t.Logf("ready again after %v", time.Since(begun))

	for _, tt := range []struct {
		dst  netip.AddrPort
		want netip.Addr
	}{{orders, nextIP}, {orders6, nextIP6}} {
		f, err := p.connect(tt.dst, unix.SOCK_STREAM)
		if err != nil {
			t.Fatalf("connect %s: %v", tt.dst, err)
		}
		echo(t, f, "after")
		if got := localOf(t, f.Fd()); got != tt.want {
			t.Errorf("a new flow comes from %v, want %v", got, tt.want)
		}
	}
	if err := connected(early, unix.Connect(early, sockaddr(orders))); err != nil {
		t.Errorf("connect of a socket that was there before: %v", err)
	}
	at, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	here := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(at.(*unix.SockaddrInet4).Port))
	if _, err := p.connect(here, unix.SOCK_STREAM); err != nil {
		t.Errorf("the listener is not reached any more: %v", err)
	}
	replies := make(chan []byte, 1)
	if !s.locals.dns.Serve(question(t, "orders."), func(reply []byte) { replies <- reply }) {
		t.Fatal("a query is dropped")
	}
	if reply := <-replies; reply[3]&0xf != 0 {
		t.Errorf("names are not resolved any more: %v", reply)
	}

	st := s.Status(t.Context(), true)
	if st.Target.Pod != "api-2" || st.State != Ready || st.Problem != nil || st.RoundTrip == 0 || !slices.Equal(st.Target.PodIPs, successor().PodIPs) {
		t.Errorf("status %+v", st)
	}
	move := <-moves
	if st.Moved == nil || move.From != "api-1" || move.To != "api-2" || !strings.Contains(move.Why, "is being deleted") || !slices.Equal(move.Env, []string{"POD_NAME"}) {
		t.Errorf("move %+v, status %+v", move, st.Moved)
	}
	if place := s.Place(); place.Pod != "api-2" || !slices.Contains(place.Env, "POD_NAME=api-2") || !slices.Equal(place.Addrs, successor().PodIPs) {
		t.Errorf("place %+v", place)
	}
	if st.Traffic.BytesOut == 0 || l.cluster.attached != 2 {
		t.Errorf("traffic %+v, %d agents", st.Traffic, l.cluster.attached)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// stackConn is a flow of the client's own stack, as a forward or a proxy has.
func (l *lab) stackConn(s *Session) (net.Conn, error) { return s.dialPod(l.t.Context(), "tcp", orders) }

// question is a query for the address of a name.
func question(t *testing.T, name string) []byte {
	t.Helper()
	return append([]byte{0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, append(append([]byte{byte(len(name) - 1)}, name[:len(name)-1]...), 0, 0, 1, 0, 1)...)
}

// TestGoodbye: an agent that is told to end says so, and nobody waits for the end of the
// carriers, which a port-forward may keep open; why it has ended is found out.
func TestGoodbye(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*fakeCluster) // the goodbye
		after  func(*fakeCluster) // once the session has said that it lost the agent
		want   State
		reason string
	}{
		{"pod_deleted", func(c *fakeCluster) { c.gone, c.next = "pod api-1 is being deleted", successor() }, nil, Ready, "pod api-1 is being deleted"},
		// Of an eviction by the node the cluster knows when the containers have ended.
		{"known_later", nil, func(c *fakeCluster) { c.gone, c.next = "pod api-1 was evicted: no memory", successor() }, Ready, "was evicted"},
		// An agent that has not lived for long is not replaced in a pod that lives.
		{"agent_ended", func(c *fakeCluster) { c.ended = true }, nil, Lost, "has ended (Completed, exit code 0)"},
		{"cluster_silent", func(c *fakeCluster) { c.silent = true }, nil, Lost, "has said that it ends"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.cluster.linger = true
			s := l.start()
			set := func(f func(*fakeCluster)) {
				l.cluster.mu.Lock()
				defer l.cluster.mu.Unlock()
				if f != nil {
					f(l.cluster)
				}
			}
			set(tt.before)
			begun := time.Now()
			l.cluster.agent.Stop()
			l.await(Reconnecting)
			if took := time.Since(begun); took > 10*time.Second { // a silent carrier is given up after 15
				t.Errorf("the session says after %v that the agent ends", took)
			}
			set(tt.after)
			l.await(tt.want)
			st := s.Status(t.Context(), false)
			why := ""
			switch {
			case st.Problem != nil:
				why = st.Problem.Reason
			case st.Moved != nil:
				why = st.Moved.Why
			}
			if !strings.Contains(why, tt.reason) {
				t.Errorf("it says %q, want %q", why, tt.reason)
			}
		})
	}
}

// TestGoneWhileDialling: that a pod is no more is found out while the dial of a carrier to
// it has no answer.
func TestGoneWhileDialling(t *testing.T) {
	l := newLab(t)
	o := l.opening()
	o.req.Stay = true
	s, err := o.Start(t.Context(), "api", l.observer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	l.await(Ready)
	l.cluster.mu.Lock()
	l.cluster.gone, l.cluster.stuck = "pod api-1 no longer exists", true
	l.cluster.mu.Unlock()
	begun := time.Now()
	l.cluster.breakCarriers(nil)
	l.await(Lost)
	if took := time.Since(begun); took >= dialTimeout {
		t.Errorf("it took %v", took)
	}
}

// TestLookPause: a pod that takes long to come is found late by a share of that time.
func TestLookPause(t *testing.T) {
	for since, want := range map[time.Duration]time.Duration{
		0: firstLook, 3 * time.Second: firstLook, 8 * time.Second: time.Second, time.Hour: lastLook,
	} {
		if got := lookPause(since); got != want {
			t.Errorf("after %v it waits %v, want %v", since, got, want)
		}
	}
}

// TestStaysPut: with Stay, and without a workload, a pod that goes takes the session along.
func TestStaysPut(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Opening)
		want string
	}{
		{"stay", func(o *Opening) { o.req.Stay = true }, "pod api-1 is being deleted"},
		{"bare_pod", func(o *Opening) { o.target.Workload = "" }, "pod api-1 is being deleted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			o := l.opening()
			tt.edit(o)
			s, err := o.Start(t.Context(), "api", l.observer())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			l.await(Ready)
			l.cluster.roll(successor())
			l.await(Lost)
			if p := s.Status(t.Context(), false).Problem; p == nil || p.Code != fault.SessionLost || p.Reason != tt.want {
				t.Errorf("problem %+v", p)
			}
		})
	}
}

// TestWaitsForASuccessor: as long as there is none the session says why, and a Close
// does not wait.
func TestWaitsForASuccessor(t *testing.T) {
	l := newLab(t)
	s := l.start()
	l.cluster.mu.Lock()
	l.cluster.gone = "pod api-1 was evicted: no memory"
	l.cluster.mu.Unlock()
	l.cluster.breakCarriers(errors.New("connection refused"))
	l.await(Reattaching)
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		p := s.Status(t.Context(), true).Problem
		if p != nil && strings.Contains(p.Reason, "was evicted: no memory") && strings.Contains(p.Reason, "deploy/api in namespace shop: it has no pods") {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("problem %+v", p)
		}
	}
	if s.helper != nil {
		p := newProgram(t, s)
		if _, err := p.connect(orders, unix.SOCK_STREAM); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connect meanwhile: %v, want ECONNREFUSED", err)
		}
	}
	if err := s.StopAgent(t.Context()); err != nil {
		t.Errorf("stop agent: %v", err)
	}
	begun := time.Now()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(begun); took > 30*time.Second { // none ever comes
		t.Errorf("close took %v", took)
	}
}

// TestGraceEndsInANewAttach: a laptop that was away for longer than the link waits finds
// its agent again.
func TestGraceEndsInANewAttach(t *testing.T) {
	l := newLab(t)
	l.opener.Grace = 10 * time.Second // longer than the first carrier takes on a machine that is busy
	s := l.start()
	p := newProgram(t, s)
	f, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, "before")
	l.cluster.breakCarriers(errors.New("the laptop sleeps"))
	l.await(Reattaching)
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("old flow: %v, want ECONNRESET", err)
	}
	l.cluster.breakCarriers(nil)
	l.await(Ready)
	again, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, again, "after")
	st := s.Status(t.Context(), true)
	if st.Moved == nil || st.Moved.To != st.Moved.From || l.cluster.attached != 1 || !st.Agent.Reused {
		t.Errorf("moved %+v, %d agents", st.Moved, l.cluster.attached)
	}
}

// TestLostNode: a pod that is not ready and does not answer is given up after a while for
// one that is ready, and for no other.
func TestLostNode(t *testing.T) {
	l := newLab(t)
	s := l.start()
	set := func(unready bool, next *kube.Target) {
		l.cluster.mu.Lock()
		defer l.cluster.mu.Unlock()
		l.cluster.unready, l.cluster.next = unready, next
	}
	waiting := successor()
	waiting.Ready = false
	for _, tt := range []struct {
		name    string
		unready bool
		next    *kube.Target
		since   time.Duration
		want    bool
	}{
		{"ready", false, successor(), time.Hour, false},
		{"not_yet", true, successor(), time.Second, false},
		{"no_other", true, nil, time.Hour, false},
		{"other_not_ready", true, waiting, time.Hour, false},
		{"lost", true, successor(), doubtAfter, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set(tt.unready, tt.next)
			err := s.agentGone(t.Context(), tt.since)
			if got := err != nil && errors.Is(err, errPodGone); got != tt.want || err == nil == tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
	set(false, nil)
}

// TestLostNodeWhileDialling: a node that is lost answers no dial at all, so what became of the pod is asked all the while.
func TestLostNodeWhileDialling(t *testing.T) {
	for _, tt := range []struct {
		name   string
		at     time.Duration // of the dial's begin
		learn  func(*fakeCluster)
		within time.Duration // of what is learnt
	}{
		{"replica_is_ready", 0, func(c *fakeCluster) { c.unready, c.next = true, successor() }, doubtAfter + doubtDial},
		// The cluster has another pod made long after the first question.
		{"pod_is_deleted", 7 * time.Second, func(c *fakeCluster) { c.gone = "pod api-1 is being deleted" }, doubtDial},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := slog.New(slog.DiscardHandler)
				cluster := &fakeCluster{t: t, stuck: true}
				g := newGround(&Opening{cluster: cluster, opener: &Opener{}}, "api", Observer{})
				defer g.end()
				s := g.at(&kube.Target{Namespace: "shop", Pod: "api-1", UID: "u1", Workload: "deploy/api"}, log)
				s.agent = &kube.Agent{Container: "borrownet-test"}
				s.carriers[fairqueue.Express].got(kube.ProtocolSPDY)
				begun := time.Now()
				time.AfterFunc(tt.at, func() {
					cluster.mu.Lock()
					defer cluster.mu.Unlock()
					tt.learn(cluster)
				})
				if _, err := s.dial(t.Context(), fairqueue.Express); !errors.Is(err, link.ErrPermanent) || !errors.Is(err, errPodGone) {
					t.Errorf("the dial: %v, want that the pod is given up", err)
				}
				if took := time.Since(begun) - tt.at; took > tt.within {
					t.Errorf("it was given up %v after that, want %v at most", took, tt.within)
				}
			})
		})
	}
}

// TestReaddressBack: a session that did not get on at one pod and goes on at the one it came from has its addresses.
func TestReaddressBack(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	for _, target := range []*kube.Target{successor(), s.target} {
		if err := s.at(target, s.log).readdress(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, "again")
	if got := localOf(t, f.Fd()); got != podIP {
		t.Errorf("a new flow comes from %v, want %v", got, podIP)
	}
}

// TestMayGoOn: an agent that has ended is replaced, unless it has not lived for long or was to end.
func TestMayGoOn(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name    string
		cause   error
		born    time.Time
		expires time.Time
		want    bool
	}{
		{"old_agent", errAgentEnded, old, time.Now().Add(time.Hour), true},
		{"young_agent", errAgentEnded, time.Now(), time.Now().Add(time.Hour), false},
		{"hard_end", errAgentEnded, old, time.Now(), false},
		{"pod_gone", errPodGone, time.Now(), time.Time{}, true},
		{"helper", nil, old, time.Time{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &Session{ground: &ground{}, target: successor(), born: tt.born}
			s.info.Expires = tt.expires
			if got := s.mayGoOn(tt.cause); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
