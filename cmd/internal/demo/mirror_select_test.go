package demo

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// askOrders sends requests on one connection to the pod of orders.
func askOrders(t *testing.T, l *laptop, requests ...*http.Request) {
	t.Helper()
	conn := l.mustDial(ordersPod, 80)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	defer client.CloseIdleConnections()
	for _, r := range requests {
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}

func ask(t *testing.T, method, path string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://orders"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// TestMirrorSelects gives a program only the requests of a connection that match, never
// a health probe, counts the others, and tells who watches what became of them.
func TestMirrorSelects(t *testing.T) {
	l := borrow(t)
	app, port := listenForCopies(t)
	s := mirrorAs(t, l, session.Request{
		Ref: "orders", Mirror: []session.Mirror{{Port: 80, To: port}},
		Select: session.Selection{Filters: []string{"path=/orders/*", "!header:X-Debug"}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun, told := make(chan bool), make(chan session.MirroredRequest, 16)
	ended := make(chan error)
	go func() {
		ended <- s.WatchRequests(ctx, func() { close(begun) }, func(r session.MirroredRequest) error { told <- r; return nil })
	}()
	<-begun
	askOrders(t, l,
		ask(t, "GET", "/orders/1"), ask(t, "GET", "/other"), ask(t, "GET", "/orders/2", "X-Debug", "1"),
		ask(t, "GET", "/orders/3", "User-Agent", "kube-probe/1.34"), ask(t, "DELETE", "/orders/4"))
	var got []string
	for len(got) < 2 {
		select {
		case r := <-told:
			if r.Status != http.StatusOK || r.Fate != "delivered" || r.Host != "orders" {
				t.Errorf("told of %+v", r)
			}
			got = append(got, r.Method+" "+r.Target)
		case <-time.After(patience):
			t.Fatalf("told of %q only", got)
		}
	}
	if diff := cmp.Diff([]string{"GET /orders/1", "DELETE /orders/4"}, got); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("watching: %v", err)
	}
	r := s.Status(t.Context(), false).Mirror.Replay.Requests
	if r.Seen != 5 || r.Delivered != 2 || r.Filtered != 2 || r.Probes != 1 {
		t.Errorf("outcomes %+v", r)
	}
	if len(app.of("/orders/1")) != 1 || len(app.of("/orders/4")) != 1 || len(app.of("/other"))+len(app.of("/orders/2"))+len(app.of("/orders/3")) != 0 {
		t.Errorf("the program got %v", app.got)
	}
}

// TestMirrorWithoutAProgram refuses copies while nobody listens, says why, and delivers
// what comes once somebody does: the caller never notices.
func TestMirrorWithoutAProgram(t *testing.T) {
	l := borrow(t)
	// Below those that the kernel gives to who asks for any, as other tests of this machine do meanwhile.
	var ln net.Listener
	var err error
	for port := 20000 + rand.IntN(10000); ; port++ {
		if ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			break
		}
		if port == 32000 {
			t.Fatal(err)
		}
	}
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	ln.Close()
	s := mirror(t, l, "orders", session.Mirror{Port: 80, To: port})
	askOrders(t, l, ask(t, "GET", "/1"), ask(t, "GET", "/2"))
	await(t, "two refused copies", func() bool {
		r := s.Status(t.Context(), false).Mirror.Replay
		return r.Requests.Refused == 2 && r.Problem != ""
	})
	if ln, err = net.Listen("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	go srv.Serve(ln) // ends with Close
	defer srv.Close()
	await(t, "a delivered copy", func() bool {
		askOrders(t, l, ask(t, "GET", "/3")) // right after a refusal it is refused untried
		return s.Status(t.Context(), false).Mirror.Replay.Requests.Delivered > 0
	})
	if r := s.Status(t.Context(), false).Mirror.Replay; r.Problem != "" {
		t.Errorf("the problem stays: %q", r.Problem)
	}
}
