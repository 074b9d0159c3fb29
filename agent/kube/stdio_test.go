package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/agent/stdio"
	"github.com/borrownet/borrownet/agent/stdio/stdiotest"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/leaktest"
)

// narrow is a cluster that refuses port-forward and lets attach pass; each agent echoes on its streams.
type narrow struct {
	f       *fakeAPI
	forward bool // port-forward is let through for now; guarded by f.mu
	noSPDY  bool // attach works over WebSocket only

	mu       sync.Mutex
	agents   map[string]*stdiotest.Container
	attached []string // containers, in order
}

func newNarrow(f *fakeAPI) *narrow {
	n := &narrow{f: f, agents: map[string]*stdiotest.Container{}}
	f.kubelet = n.start
	f.intercept = n.handle
	return n
}

// start runs an agent that has standard streams, if it has. f.mu is held.
func (n *narrow) start(p *api.Pod, container string) {
	if takesStdio(p, container) {
		c := stdiotest.Start()
		l := stdio.Listen(c.In, c.Out, []byte(strings.TrimSpace(hello())))
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { _, _ = io.Copy(conn, conn); conn.Close() })
			}
		})
		n.f.t.Cleanup(func() { l.Close(); wg.Wait() })
		n.mu.Lock()
		n.agents[container] = c
		n.mu.Unlock()
	}
	n.f.setState(p, container, running())
}

func (n *narrow) handle(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case strings.HasSuffix(r.URL.Path, "/portforward"):
		n.f.mu.Lock()
		defer n.f.mu.Unlock()
		if n.forward {
			return false // 404: whatever it is, it is no refusal
		}
		n.f.reply(w, status(403, metav1.StatusReasonForbidden, `pods "api-1" is forbidden: User "jane" cannot create resource "pods/portforward" in API group "" in the namespace "shop"`))
	case strings.HasSuffix(r.URL.Path, "/attach"):
		n.attach(w, r)
	default:
		return false
	}
	return true
}

func (n *narrow) attach(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("container")
	n.mu.Lock()
	c := n.agents[name]
	n.attached = append(n.attached, name)
	n.mu.Unlock()
	if c == nil || r.URL.Query().Get("stdin") != "true" || r.URL.Query().Get("stdout") != "true" {
		n.f.t.Errorf("attach to %s", r.URL)
		return
	}
	a := c.Attach()
	defer a.Close()
	if websocket.IsWebSocketUpgrade(r) {
		n.serveWebSocket(w, r, a)
		return
	}
	if n.noSPDY {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		n.f.t.Error(err)
		return
	}
	streams := make(chan httpstream.Stream, 3)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error { streams <- s; return nil })
	if conn == nil {
		return
	}
	defer conn.Close()
	got := map[string]httpstream.Stream{}
	for len(got) < 3 {
		select {
		case s := <-streams:
			got[s.Headers().Get(api.StreamType)] = s
		case <-conn.CloseChan():
			return
		}
	}
	n.copy(a, got[api.StreamTypeStdin], got[api.StreamTypeStdout], conn.CloseChan())
}

// copy copies until the client leaves or the container ends.
func (n *narrow) copy(a *stdiotest.Attached, stdin io.Reader, stdout io.Writer, left <-chan bool) {
	over := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(a, stdin); over <- struct{}{} }()
	go func() { _, _ = io.Copy(stdout, a); over <- struct{}{} }()
	select {
	case <-over:
	case <-left:
	}
	a.Close()
}

func (n *narrow) serveWebSocket(w http.ResponseWriter, r *http.Request, a *stdiotest.Attached) {
	up := websocket.Upgrader{Subprotocols: []string{"v4.channel.k8s.io"}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		n.f.t.Error(err)
		return
	}
	defer ws.Close()
	for _, channel := range []byte{1, 3} { // that they are there
		if ws.WriteMessage(websocket.BinaryMessage, []byte{channel}) != nil {
			return
		}
	}
	go func() {
		buf := make([]byte, 32<<10)
		buf[0] = 1
		for {
			k, err := a.Read(buf[1:])
			if err != nil || ws.WriteMessage(websocket.BinaryMessage, buf[:1+k]) != nil {
				return
			}
		}
	}()
	for {
		_, message, err := ws.ReadMessage()
		if err != nil {
			return
		}
		if len(message) > 1 && message[0] == 0 {
			if _, err := a.Write(message[1:]); err != nil {
				return
			}
		}
	}
}

func dialCalls(t *testing.T, c *Client, a *Agent) Carrier {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	carrier, err := c.Dial(ctx, target(), a, ForCalls)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { carrier.Close() })
	return carrier
}

// TestAttachInsteadOfForward: where port-forward is refused, the agent gets standard streams and the link goes over them.
func TestAttachInsteadOfForward(t *testing.T) {
	for _, noSPDY := range []bool{false, true} {
		t.Run(fmt.Sprintf("noSPDY=%v", noSPDY), func(t *testing.T) {
			leaktest.Check(t)
			f := newFakeAPI(t)
			f.addPod("api-1", nil)
			n := newNarrow(f)
			n.noSPDY = noSPDY
			c := f.client()
			a, err := attach(t, c, spec())
			if err != nil {
				t.Fatal(err)
			}
			if !a.Stdio {
				t.Fatalf("the agent has no standard streams: %+v", a)
			}
			for range 2 { // the second one while the first is there
				carrier := dialCalls(t, c, a)
				if carrier.Protocol() != ProtocolAttach {
					t.Errorf("protocol %s", carrier.Protocol())
				}
				want := strings.Repeat("what goes there comes back\n", 20_000)
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := io.WriteString(carrier, want); err != nil {
						t.Error(err)
					}
				})
				got := make([]byte, len(want))
				if _, err := io.ReadFull(carrier, got); err != nil || string(got) != want {
					t.Errorf("%d bytes came back, error %v", len(got), err)
				}
				wg.Wait()
				if err := carrier.Close(); err != nil {
					t.Error(err)
				}
			}
			if _, err := c.Dial(t.Context(), target(), a, ForBulk); !errors.Is(err, ErrForwardRefused) {
				t.Errorf("a second carrier over attach: %v", err)
			}
		})
	}
}

// TestRefusedForwardLater: an agent that was placed when port-forward was allowed is left for one with standard streams,
// which is taken again when its greeting is no more in its log.
func TestRefusedForwardLater(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	n := newNarrow(f)
	n.forward = true
	c := f.client()
	first, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	if first.Stdio {
		t.Error("the agent has a standard input that nobody needs")
	}
	f.mu.Lock()
	n.forward = false
	f.mu.Unlock()
	second, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	if !second.Stdio || second.Container == first.Container {
		t.Errorf("first %+v, second %+v", first, second)
	}
	f.mu.Lock()
	f.logs[second.Container] = "~rotated\n"
	f.mu.Unlock()
	third, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	want, err := wire.ParseHello([]byte(hello()))
	if err != nil {
		t.Fatal(err)
	}
	if third.Container != second.Container || third.Hello != want {
		t.Errorf("third %+v", third)
	}
}

// TestNeitherForwardNorAttach: the error is that of port-forward, whose right is the better one to have.
func TestNeitherForwardNorAttach(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	f.deny["create pods/portforward"], f.deny["get pods/portforward"], f.deny["create pods/attach"] = true, true, true
	_, err := attach(t, f.client(), spec())
	wantError(t, err, "you may not create pods/portforward in namespace shop (RBAC)", "borrownet rbac -n shop --workloads")
	if n := f.mutations(); n != 0 {
		t.Errorf("%d changes", n)
	}
}

// TestWebhookRefusesForward: who refuses makes no difference, nor with which code.
func TestWebhookRefusesForward(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	n := newNarrow(f)
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/portforward") {
			f.reply(w, status(400, metav1.StatusReasonBadRequest, `admission webhook "no-forward.example.org" denied the request: not here`))
			return true
		}
		return n.handle(w, r)
	}
	a, err := attach(t, f.client(), spec())
	if err != nil || !a.Stdio {
		t.Errorf("agent %+v, error %v", a, err)
	}
}

// TestPlanOverAttach: a dry run shows the container and the rights that attach takes.
func TestPlanOverAttach(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	newNarrow(f)
	text, err := f.client().Plan(t.Context(), target(), spec())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{noteStdio, "right to create pods/attach: yes", "stdin: true"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "portforward") {
		t.Errorf("port-forward is asked for:\n%s", text)
	}
}

// TestCrowdedLog: what an agent does is not known when the link over attach has filled its log.
func TestCrowdedLog(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	c := f.client()
	a, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Borrowing{
		hello():   Parked,
		"~AAAA\n": Occupancy,
		"~AAAA\n" + `{"msg":"` + wire.LogSessionStarts + `"}` + "\n": Borrowed,
	} {
		f.mu.Lock()
		f.logs[a.Container] = text
		f.mu.Unlock()
		b := Borrower{Container: a.Container}
		if err := c.readRecord(t.Context(), target(), &b); err != nil || b.State != want {
			t.Errorf("log %q: %s, error %v, want %s", text, b.State, err, want)
		}
	}
}
