package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/netstack/replay"
)

// fakeOpener opens fakes; what goes wrong is chosen by the target's name.
type fakeOpener struct {
	mu       sync.Mutex
	sessions map[string]*fakeSession // by target
	aborted  chan string             // targets whose start was aborted
	undoing  chan struct{}           // an aborted start takes until this is closed, if not nil
	hold     chan struct{}           // the start of "late" takes until this is closed
}

func newFakeOpener() *fakeOpener {
	return &fakeOpener{sessions: map[string]*fakeSession{}, aborted: make(chan string, 8), hold: make(chan struct{})}
}

var errPolicy = &fault.Error{Code: fault.Agent, Op: "attach agent to", Object: "pod shop/api", Reason: "policy says no", Hint: "ask them"}

func (o *fakeOpener) Open(_ context.Context, req session.Request, step func(string)) (Opening, error) {
	step("find " + req.Ref)
	if req.Ref == "unknown" {
		return nil, &fault.Error{Code: fault.Target, Op: "find", Object: "pod unknown", Reason: "not found", Hint: "kubectl get pods"}
	}
	return &fakeOpening{opener: o, ref: req.Ref}, nil
}

type fakeOpening struct {
	opener *fakeOpener
	ref    string
}

func (o *fakeOpening) Name() string { return o.ref }
func (o *fakeOpening) Close() error { return nil }

func (o *fakeOpening) Start(ctx context.Context, name string, obs session.Observer) (Session, error) {
	obs.Step("attach")
	switch o.ref {
	case "refused":
		return nil, fmt.Errorf("start: %w", errPolicy)
	case "late":
		<-o.opener.hold
	case "slow":
		<-ctx.Done()
		o.opener.aborted <- name
		if o.opener.undoing != nil {
			<-o.opener.undoing
		}
		return nil, context.Cause(ctx)
	}
	s := &fakeSession{name: name, observe: obs.State, moved: obs.Moved, ended: make(chan struct{})}
	o.opener.mu.Lock()
	o.opener.sessions[o.ref] = s
	o.opener.mu.Unlock()
	return s, nil
}

func (o *fakeOpener) session(ref string) *fakeSession {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sessions[ref]
}

type fakeSession struct {
	name    string
	ended   chan struct{} // closed when it ends
	observe func(session.State, *fault.Error)
	moved   func(session.Move)
	stopped atomic.Bool
	closed  atomic.Bool
}

func (s *fakeSession) Status(_ context.Context, measure bool) session.Status {
	st := session.Status{Session: s.name, State: session.Ready}
	if measure {
		st.RoundTrip = time.Millisecond
	}
	return st
}

func (s *fakeSession) ExplainName(_ context.Context, name, qtype string) (dnsproxy.Explanation, error) {
	if qtype == "X" {
		return dnsproxy.Explanation{}, &fault.Error{Code: fault.Usage, Op: "explain", Object: name, Reason: "no such type"}
	}
	return dnsproxy.Explanation{Name: name + ".", Type: qtype, Rcode: "NOERROR"}, nil
}

func (s *fakeSession) ReadFile(_ context.Context, path string) ([]byte, error) {
	if path != "/a&b?" {
		return nil, &fault.Error{Code: fault.Target, Op: "read", Object: path, Reason: "no such file"}
	}
	return []byte("\x00\xff"), nil
}

func (s *fakeSession) Way(_ context.Context, host string) (session.Way, error) {
	if host == "nobody" {
		return session.Way{}, &fault.Error{Code: fault.Target, Op: "find", Object: host}
	}
	return session.Way{Socket: host}, nil
}

func (s *fakeSession) Record(context.Context) (io.ReadCloser, error) {
	if s.name != "api" {
		return nil, &fault.Error{Code: fault.Usage, Op: "record session", Object: s.name, Reason: "it mirrors no port"}
	}
	return io.NopCloser(strings.NewReader("a capture")), nil
}

func (s *fakeSession) Place() session.Place {
	return session.Place{Session: s.name, Socket: "/run/x.sock", Env: []string{"A=1"}}
}

func (s *fakeSession) StopAgent(context.Context) error {
	s.stopped.Store(true)
	if s.name == "stubborn" {
		return &fault.Error{Code: fault.NoDataPath, Op: "stop agent", Reason: "no answer"}
	}
	return nil
}

func (s *fakeSession) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	close(s.ended)
	return nil
}

// WatchRequests tells of two requests.
func (s *fakeSession) WatchRequests(ctx context.Context, begin func(), tell func(session.MirroredRequest) error) error {
	if s.name == "unmirrored" {
		return &fault.Error{Code: fault.Usage, Op: "watch", Object: s.name, Reason: "it mirrors no port", Hint: "up --mirror"}
	}
	begin()
	for _, target := range []string{"/a", "/b"} {
		if err := tell(session.MirroredRequest{Request: replay.Request{Method: "GET", Target: target}}); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
	case <-s.ended:
	}
	return nil
}

// house is a runtime directory whose daemon runs inside the test.
type house struct {
	t      *testing.T
	dir    *rundir.Dir
	opener *fakeOpener
	client *Client
	starts atomic.Int32
	ended  chan error // one per daemon
	stop   context.CancelFunc
	ctx    context.Context
}

func newHouse(t *testing.T) *house {
	t.Helper()
	base, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir, err := rundir.At(filepath.Join(base, "run"))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: dir, opener: newFakeOpener(), ended: make(chan error, 16)}
	h.ctx, h.stop = context.WithCancel(t.Context())
	h.client = h.newClient("v1")
	t.Cleanup(func() {
		h.stop()
		for range h.starts.Load() {
			h.await()
		}
	})
	return h
}

func (h *house) newClient(version string) *Client {
	return NewClient(ClientConfig{Dir: h.dir, Version: version, Spawn: h.spawn, Keep: session.IsKey})
}

func (h *house) spawn(ctx context.Context) error {
	h.starts.Add(1)
	ready := make(chan struct{})
	go func() {
		h.ended <- Run(h.ctx, Config{Dir: h.dir, Opener: h.opener, Version: "v1", Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await waits for the end of one daemon.
func (h *house) await() {
	h.t.Helper()
	select {
	case err := <-h.ended:
		h.starts.Add(-1)
		if err != nil {
			h.t.Errorf("daemon: %v", err)
		}
	case <-time.After(time.Minute):
		h.t.Fatal("the daemon does not end")
	}
}

func (h *house) up(ref string, owned bool) (*Hold, error) {
	h.t.Helper()
	return h.client.Up(h.t.Context(), UpRequest{Request: session.Request{Ref: ref}, Owned: owned}, func(string) {})
}

func (h *house) mustUp(ref string, owned bool) *Hold {
	h.t.Helper()
	hold, err := h.up(ref, owned)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { hold.Close() })
	return hold
}

// empty fails the test if anything is left in the runtime directory.
func (h *house) empty() {
	h.t.Helper()
	if _, err := os.Lstat(h.dir.String()); !errors.Is(err, os.ErrNotExist) {
		entries, _ := os.ReadDir(h.dir.String())
		h.t.Errorf("runtime directory is still there with %v", entries)
	}
}

func TestLifeOfASession(t *testing.T) {
	h := newHouse(t)
	if _, err := h.client.List(t.Context(), false); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("list without a daemon: %v", err)
	}
	var steps []string
	hold, err := h.client.Up(t.Context(), UpRequest{Request: session.Request{Ref: "api"}}, func(s string) { steps = append(steps, s) })
	if err != nil {
		t.Fatal(err)
	}
	hold.Close() // not owned: the session stays
	if diff := cmp.Diff([]string{"find api", "attach"}, steps); diff != "" {
		t.Errorf("steps (-want +got)\n%s", diff)
	}
	if hold.Status.Session != "api" || hold.Status.RoundTrip == 0 {
		t.Errorf("status %+v", hold.Status)
	}
	h.mustUp("web", false)
	list, err := h.client.List(t.Context(), false)
	if err != nil || len(list) != 2 || list[0].Session != "api" || list[1].Session != "web" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if stream, err := h.client.Record(t.Context(), "api"); err != nil {
		t.Error(err)
	} else if text, err := io.ReadAll(stream); err != nil || string(text) != "a capture" {
		t.Errorf("recorded %q, %v", text, err)
	}
	if _, err := h.client.Record(t.Context(), "web"); fault.From(err).Code != fault.Usage {
		t.Errorf("record what mirrors nothing: %v", err)
	}
	if way, err := h.client.Way(t.Context(), "api", "a&b?"); err != nil || way.Socket != "a&b?" {
		t.Errorf("way %+v, %v", way, err)
	}
	if _, err := h.client.Way(t.Context(), "api", "nobody"); fault.From(err).Code != fault.Target {
		t.Errorf("way to nobody: %v", err)
	}
	names, err := h.client.ExplainName(t.Context(), "api", "a&b?", "SRV")
	if err != nil || names.Name != "a&b?." || names.Type != "SRV" {
		t.Errorf("explain: %+v, %v", names, err)
	}
	if _, err := h.client.ExplainName(t.Context(), "api", "orders", "X"); fault.From(err).Code != fault.Usage {
		t.Errorf("explain with a bad type: %v", err)
	}
	if data, err := h.client.ReadFile(t.Context(), "api", "/a&b?"); err != nil || string(data) != "\x00\xff" {
		t.Errorf("file: %q, %v", data, err)
	}
	if _, err := h.client.ReadFile(t.Context(), "api", "/c"); fault.From(err).Code != fault.Target {
		t.Errorf("a file that is not there: %v", err)
	}
	place, err := h.client.Place(t.Context(), "api")
	if err != nil || place.Socket != "/run/x.sock" {
		t.Errorf("place: %+v, %v", place, err)
	}
	for _, name := range []string{"api", "web"} {
		if _, err := h.client.Down(t.Context(), name, name == "web"); err != nil {
			t.Fatal(err)
		}
	}
	if s := h.opener.session("api"); !s.closed.Load() || s.stopped.Load() {
		t.Error("api: want closed, its agent parked")
	}
	if s := h.opener.session("web"); !s.closed.Load() || !s.stopped.Load() {
		t.Error("web: want closed, its agent stopped")
	}
	h.await()
	h.empty()
}

func TestFaultsCrossTheSocket(t *testing.T) {
	h := newHouse(t)
	h.mustUp("api", false)
	tests := []struct {
		name string
		call func() error
		want *fault.Error
	}{
		{"start", func() error { _, err := h.up("refused", false); return err }, errPolicy},
		{"find", func() error { _, err := h.up("unknown", true); return err },
			&fault.Error{Code: fault.Target, Op: "find", Object: "pod unknown", Reason: "not found", Hint: "kubectl get pods"}},
		{"taken", func() error { _, err := h.up("api", false); return err },
			&fault.Error{Code: fault.SessionExists, ID: "BN3101", Op: "set up session", Object: "api", Reason: "there is one of that name"}},
		{"no_name", func() error { _, err := h.client.Down(t.Context(), "", false); return err }, NoSession(`""`)},
		{"path_here", func() error { _, err := h.client.Status(t.Context(), "."); return err }, NoSession(`"."`)},
		{"path_up", func() error { _, err := h.client.Place(t.Context(), ".."); return err }, NoSession(`".."`)},
		{"path", func() error { _, err := h.client.Status(t.Context(), "../version"); return err }, NoSession("../version")},
		{"no_session", func() error { _, err := h.client.Place(t.Context(), "none"); return err }, NoSession("none")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got *fault.Error
			if err := tt.call(); !errors.As(err, &got) {
				t.Fatalf("got %v", err)
			}
			if got.Hint == "" {
				t.Error("no hint")
			}
			ignore := cmpopts.IgnoreFields(fault.Error{}, "Err", "Hint")
			if diff := cmp.Diff(tt.want, got, ignore); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestLargestEnvironment: a request carries the environment of its client, which
// may be as large as execve(2) lets it be.
func TestLargestEnvironment(t *testing.T) {
	h := newHouse(t)
	req := UpRequest{Request: session.Request{Ref: "api"}}
	for i := range 48 {
		req.Kube.Env = append(req.Kube.Env, fmt.Sprintf("V%d=%s", i, strings.Repeat("\x01", 128<<10-8)))
	}
	hold, err := h.client.Up(t.Context(), req, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	hold.Close()
}

func TestDaemonEndsWhenTheFirstUpFails(t *testing.T) {
	h := newHouse(t)
	if _, err := h.up("refused", false); err == nil {
		t.Fatal("no error")
	}
	h.await()
	h.empty()
}

func TestOwnedSessionEndsWithItsClient(t *testing.T) {
	h := newHouse(t)
	hold := h.mustUp("api", true)
	s := h.opener.session("api")
	hold.Close() // what the kernel does for a client that is killed
	h.await()
	if !s.closed.Load() {
		t.Error("the session was not closed")
	}
	h.empty()
}

// TestReadySessionOutlivesTheContextOfItsStart: a person's signals belong to the
// borrowed shell once the session is up.
func TestReadySessionOutlivesTheContextOfItsStart(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	hold, err := h.client.Up(ctx, UpRequest{Request: session.Request{Ref: "api"}, Owned: true}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	cancel()
	states := make(chan StateEvent, 1)
	go hold.Watch(func(ev StateEvent) { states <- ev })
	s := h.opener.session("api")
	s.observe(session.Reconnecting, nil)
	if ev := <-states; ev.State != session.Reconnecting || s.closed.Load() {
		t.Errorf("state %v, closed %v", ev.State, s.closed.Load())
	}
}

func TestOwnedSessionTellsItsClient(t *testing.T) {
	h := newHouse(t)
	hold := h.mustUp("api", true)
	s := h.opener.session("api")
	problem := &fault.Error{Code: fault.SessionLost, Op: "keep session", Object: "api", Reason: "pod is gone", Hint: "up again"}
	states := make(chan StateEvent, 1)
	ended := make(chan string, 1)
	go func() {
		why, err := hold.Watch(func(ev StateEvent) { states <- ev })
		if err != nil {
			why = err.Error()
		}
		ended <- why
	}()
	s.observe(session.Lost, problem)
	if ev := <-states; ev.State != session.Lost || ev.Problem == nil || ev.Problem.Hint != "up again" {
		t.Errorf("event %+v", ev)
	}
	var f *fault.Error
	if _, err := h.client.Place(t.Context(), "api"); !errors.As(err, &f) || f.Code != fault.SessionLost {
		t.Errorf("place of a lost session: %v", err)
	}
	if _, err := h.client.Down(t.Context(), "api", false); err != nil {
		t.Fatal(err)
	}
	if why := <-ended; why != errDowned.Error() {
		t.Errorf("ended: %q", why)
	}
}

func TestLostSessionGivesItsNameAway(t *testing.T) {
	h := newHouse(t)
	h.mustUp("api", false)
	old := h.opener.session("api")
	old.observe(session.Lost, &fault.Error{Code: fault.SessionLost, Reason: "gone"})
	h.mustUp("api", false)
	if !old.closed.Load() || h.opener.session("api") == old {
		t.Error("the lost session was not replaced")
	}
}

func TestStartIsAborted(t *testing.T) {
	t.Run("by_client", func(t *testing.T) {
		h := newHouse(t)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := h.client.Up(ctx, UpRequest{Request: session.Request{Ref: "slow"}}, func(s string) {
			if s == "attach" {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want Canceled", err)
		}
		<-h.opener.aborted
		h.await()
		h.empty()
	})
	t.Run("and_repeated", func(t *testing.T) {
		h := newHouse(t)
		h.opener.undoing = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		_, err := h.client.Up(ctx, UpRequest{Request: session.Request{Ref: "slow"}}, func(s string) {
			if s == "attach" {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want Canceled", err)
		}
		<-h.opener.aborted
		time.AfterFunc(100*time.Millisecond, func() { close(h.opener.undoing) })
		hold, err := h.client.Up(t.Context(), UpRequest{Request: session.Request{Name: "slow", Ref: "api"}}, func(string) {})
		if err != nil {
			t.Fatalf("the name is not free again: %v", err)
		}
		hold.Close()
	})
	t.Run("by_down", func(t *testing.T) {
		h := newHouse(t)
		attaching := make(chan struct{})
		result := make(chan error, 1)
		go func() {
			_, err := h.client.Up(t.Context(), UpRequest{Request: session.Request{Ref: "slow"}}, func(s string) {
				if s == "attach" {
					close(attaching)
				}
			})
			result <- err
		}()
		<-attaching
		if _, err := h.client.Down(t.Context(), "slow", false); err != nil {
			t.Fatal(err)
		}
		var f *fault.Error
		if err := <-result; !errors.As(err, &f) || f.Code != fault.Interrupted {
			t.Errorf("got %v", err)
		}
		h.await()
	})
}

func TestDaemonTakesItsSessionsDown(t *testing.T) {
	h := newHouse(t)
	h.mustUp("api", false)
	hold := h.mustUp("web", true)
	h.stop()
	h.await()
	for _, ref := range []string{"api", "web"} {
		if !h.opener.session(ref).closed.Load() {
			t.Errorf("%s was not closed", ref)
		}
	}
	if why, err := hold.Watch(func(StateEvent) {}); err == nil && why == "" {
		t.Error("the owner was not told")
	}
	h.empty()
}

func TestDownWarnsWhenTheAgentStays(t *testing.T) {
	h := newHouse(t)
	h.mustUp("stubborn", false)
	d, err := h.client.Down(t.Context(), "stubborn", true)
	if err != nil || d.Warning == nil || d.Warning.Reason != "no answer" {
		t.Errorf("got %+v, %v", d, err)
	}
}

// TestDownStopsTheAgentOfAStart: the agent of a session that only starts can be told to
// end once it is there; that it could not be is said.
func TestDownStopsTheAgentOfAStart(t *testing.T) {
	for _, tt := range []struct {
		ref     string
		stopped bool
		warning string
	}{
		{"late", true, ""},
		{"slow", false, "stop the agent that session slow may be placing: it cannot be told yet"},
	} {
		t.Run(tt.ref, func(t *testing.T) {
			h := newHouse(t)
			attaching := make(chan struct{})
			go h.client.Up(t.Context(), UpRequest{Request: session.Request{Ref: tt.ref}}, func(s string) { // ends with down
				if s == "attach" {
					close(attaching)
				}
			})
			<-attaching
			time.AfterFunc(100*time.Millisecond, func() { close(h.opener.hold) }) // down waits by then, or comes later: both are right
			d, err := h.client.Down(t.Context(), tt.ref, true)
			got := ""
			if d.Warning != nil {
				got = d.Warning.Error()
			}
			if err != nil || got != tt.warning {
				t.Errorf("warning %q, %v; want %q", got, err, tt.warning)
			}
			if s := h.opener.session(tt.ref); tt.stopped && (s == nil || !s.stopped.Load() || !s.closed.Load()) {
				t.Errorf("session %+v, want its agent stopped", s)
			}
			h.await()
		})
	}
}

// TestOneDaemonForManyClients races clients that all find none.
func TestOneDaemonForManyClients(t *testing.T) {
	h := newHouse(t)
	for round := range 5 {
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				name := fmt.Sprintf("s%d", i)
				hold, err := h.newClient("v1").Up(t.Context(), UpRequest{Request: session.Request{Ref: name}}, func(string) {})
				if err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				hold.Close()
				if _, err := h.client.Down(t.Context(), name, false); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
	}
}

func TestVersionSkew(t *testing.T) {
	h := newHouse(t)
	h.mustUp("api", false)
	hold, err := h.newClient("v2").Up(t.Context(), UpRequest{Request: session.Request{Ref: "web"}}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	hold.Close()
	if hold.Skewed != "v1" {
		t.Errorf("skew: got %q, want v1", hold.Skewed)
	}
}

func TestStaleFilesAreSwept(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{rundir.SocketName, "session-0.sock"} {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.dir.Path(name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false) // as after kill -9
		ln.Close()
	}
	h.mustUp("api", false)
	if _, err := os.Lstat(h.dir.Path("session-0.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stale socket: %v", err)
	}
}

// TestClientTidiesUpAfterAKilledDaemon: any question does, also if no daemon is
// ever started again.
func TestClientTidiesUpAfterAKilledDaemon(t *testing.T) {
	h := newHouse(t)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.dir.Path(rundir.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false) // as after kill -9
	ln.Close()
	for _, name := range []string{rundir.LogName, rundir.DaemonLock, "target.key"} {
		if err := os.WriteFile(h.dir.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.client.List(t.Context(), false); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
	entries, err := os.ReadDir(h.dir.String())
	if err != nil || len(entries) != 1 || entries[0].Name() != "target.key" {
		t.Errorf("left %v, %v, want the key alone", entries, err)
	}
}

// TestNoRoomForALock: a lock that cannot be made is not one that is held.
func TestNoRoomForALock(t *testing.T) {
	h := newHouse(t)
	if err := os.Mkdir(h.dir.Path(rundir.DaemonLock), 0o700); err != nil { // opening it fails
		t.Fatal(err)
	}
	err := Run(t.Context(), Config{Dir: h.dir, Opener: h.opener})
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.Laptop || f.Hint == "" || strings.Contains(f.Error(), "another daemon") {
		t.Errorf("got %v", err)
	}
}

func TestSpawnReportsDeath(t *testing.T) {
	h := newHouse(t)
	err := Spawn(t.Context(), h.dir, []string{"/bin/sh", "-c", "echo some reason >&2; exit 1"})
	if err == nil || !strings.Contains(err.Error(), "it died: some reason") {
		t.Errorf("got %v", err)
	}
	err = Spawn(t.Context(), h.dir, []string{"/bin/sh", "-c", `echo '{"code":20,"op":"listen","reason":"no"}' >&3`})
	var f *fault.Error
	if !errors.As(err, &f) || f.Op != "listen" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(h.dir.Path(rundir.LogName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a log stays beside the reported fault: %v", err)
	}
	if err := Spawn(t.Context(), h.dir, []string{"/bin/sh", "-c", `echo '{"code":0}' >&3`}); err != nil {
		t.Errorf("got %v", err)
	}
	os.Remove(h.dir.Path(rundir.LogName))
}

// TestRequestsAreTold: a client is told of requests until it leaves, or the session
// ends.
func TestRequestsAreTold(t *testing.T) {
	h := newHouse(t)
	h.mustUp("api", false)
	watch := func(ctx context.Context, end func()) []string {
		t.Helper()
		var got []string
		err := h.client.WatchRequests(ctx, "api", func() { got = append(got, "begin") }, func(q session.MirroredRequest) {
			if got = append(got, q.Method+" "+q.Target); q.Target == "/b" {
				end()
			}
		})
		if err != nil {
			t.Error(err)
		}
		return got
	}
	want := []string{"begin", "GET /a", "GET /b"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if diff := cmp.Diff(want, watch(ctx, cancel)); diff != "" {
		t.Errorf("until the client leaves (-want +got)\n%s", diff)
	}
	down := func() {
		if _, err := h.client.Down(t.Context(), "api", false); err != nil {
			t.Error(err)
		}
	}
	var downs sync.WaitGroup
	if diff := cmp.Diff(want, watch(t.Context(), func() { downs.Go(down) })); diff != "" {
		t.Errorf("until the session ends (-want +got)\n%s", diff)
	}
	downs.Wait()
	h.mustUp("unmirrored", false)
	err := h.client.WatchRequests(t.Context(), "unmirrored", func() { t.Error("it begins") }, nil)
	if f := fault.From(err); f == nil || f.Hint != "up --mirror" {
		t.Errorf("of a session that mirrors nothing: %v", err)
	}
}
