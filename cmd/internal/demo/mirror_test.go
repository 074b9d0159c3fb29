package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
)

// copies are the requests that a program of this machine got, by path: the SHA-256 of their bodies.
type copies struct {
	mu  sync.Mutex
	got map[string][]string
}

// listenForCopies serves HTTP on this machine until the test ends.
func listenForCopies(t *testing.T) (*copies, uint16) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &copies{got: map[string][]string{}}
	srv := &http.Server{Handler: c}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	return c, uint16(ln.Addr().(*net.TCPAddr).Port)
}

func (c *copies) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	_, err := io.Copy(h, r.Body)
	sum := hex.EncodeToString(h.Sum(nil))
	if err != nil {
		sum = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got[r.URL.Path] = append(c.got[r.URL.Path], sum)
	// More than the pod answers, and of no concern to anybody.
	_, _ = w.Write(make([]byte, 100<<10))
}

func (c *copies) of(path string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[path]
}

// mirror starts a session that copies a port of a pod.
func mirror(t *testing.T, l *laptop, ref string, m ...session.Mirror) *session.Session {
	t.Helper()
	return mirrorAs(t, l, session.Request{Ref: ref, Mirror: m})
}

// mirrorAs starts the session that req asks for.
func mirrorAs(t *testing.T, l *laptop, req session.Request) *session.Session {
	t.Helper()
	opener := &session.Opener{Dir: l.dir, Keys: session.NewKeys(l.dir), Connect: func(f kube.Flags) (session.Cluster, error) {
		return NewClient(l.dir, f), nil
	}}
	req.Hook, req.IdleTTL, req.HardTTL, req.Kube = hook.Relay, time.Minute, time.Hour, kube.Flags{Context: Context}
	opening, err := opener.Open(t.Context(), req, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	s, err := opening.Start(t.Context(), req.Ref, session.Observer{Step: func(string) {}, State: func(session.State, *fault.Error) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// With the agent its key goes, or it would stay in the runtime directory.
		if err := errors.Join(s.StopAgent(context.Background()), s.Close()); err != nil {
			t.Errorf("close session: %v", err)
		}
	})
	// The start itself does not wait for ever.
	await(t, "the pod is mirrored", func() bool { return s.Status(t.Context(), false).Mirror.Running })
	return s
}

// await waits for a condition.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// TestMirror copies requests to a pod, by its own and by its Service's address, byte by byte to a program of this machine,
// while their callers get the pod's answers.
func TestMirror(t *testing.T) {
	l := borrow(t)
	app, port := listenForCopies(t)
	s := mirror(t, l, "orders", session.Mirror{Port: 80, To: port})
	if st := s.Status(t.Context(), false).Mirror; st == nil || !st.Running || st.Problem != nil {
		t.Fatalf("status %+v", st)
	}
	want := map[string]string{}
	for i, at := range []netip.Addr{ordersPod, ordersAddr, ordersPod} {
		conn := l.mustDial(at, 80)
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		for j := range 10 {
			body := make([]byte, rand.IntN(200<<10))
			for k := range body {
				body[k] = byte(rand.Uint32())
			}
			path := fmt.Sprintf("/%d/%d", i, j)
			sum := sha256.Sum256(body)
			want[path] = hex.EncodeToString(sum[:])
			resp, err := client.Post("http://orders"+path, "application/octet-stream", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Contains(answer, []byte(`"app": "orders"`)) {
				t.Fatalf("the pod's answer is %q, %v", answer, err)
			}
			resp.Body.Close()
		}
		client.CloseIdleConnections()
	}
	for path, sum := range want {
		await(t, "a copy of "+path, func() bool { return len(app.of(path)) > 0 })
		if got := app.of(path); len(got) != 1 || got[0] != sum {
			t.Errorf("%s: bodies with the digests %q, want %s once", path, got, sum)
		}
	}
	await(t, "the agent's counters", func() bool {
		c := s.Status(t.Context(), false).Mirror.Capture
		return c != nil && c.Packets > 0
	})
	st := s.Status(t.Context(), false).Mirror
	if c := st.Capture; c.LostFlows+c.LostPackets+c.Dropped+c.Unreadable > 0 || st.Starts != 1 {
		t.Errorf("status %+v, capture %+v", st, c)
	}
}

// TestRecord: what a session mirrors can be recorded beside it, with whole answers.
func TestRecord(t *testing.T) {
	l := borrow(t)
	_, port := listenForCopies(t)
	s := mirror(t, l, "orders", session.Mirror{Port: 80, To: port})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body, err := s.Record(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	stream := wire.NewCaptureReader(body)
	if first, err := stream.Next(); err != nil || first.Stats == nil {
		t.Fatalf("first record %+v, %v", first, err)
	}
	conn := l.mustDial(ordersPod, 80)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	resp, err := client.Get("http://orders/recorded")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	var request, reply bool
	for !request || !reply {
		r, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		request = request || bytes.Contains(r.Data, []byte("GET /recorded HTTP/1.1"))
		reply = reply || bytes.Contains(r.Data, bytes.TrimSpace(answer))
	}
}

// TestMirrorMoves: a session that goes on at another pod mirrors that one.
func TestMirrorMoves(t *testing.T) {
	l := borrow(t)
	_, port := listenForCopies(t)
	s := mirror(t, l, "api", session.Mirror{Port: 80, To: port})
	first := s.Status(t.Context(), false)
	if !first.Mirror.Running || first.Mirror.Starts != 1 {
		t.Fatalf("status %+v", first.Mirror)
	}
	if _, err := l.client.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the next pod is mirrored", func() bool {
		st := s.Status(t.Context(), false)
		return st.Target.Pod != first.Target.Pod && st.State == session.Ready && st.Mirror.Running && st.Mirror.Starts == 2
	})
}
