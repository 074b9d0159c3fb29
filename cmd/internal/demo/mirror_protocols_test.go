package demo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// The tests of this file mirror what real clients and servers say to each other. The live
// server, in a pod, and the program that gets the copies are the same: they must hear
// the same.

// livePort is where the live servers are.
const livePort = 9000

// listeners returns where the live server listens, in the pod of an app, and where the
// program of this machine does, with its port.
func (l *laptop) listeners(app string) (live, local net.Listener, port uint16) {
	l.t.Helper()
	p, err := l.world.find(Namespace, app)
	if err != nil {
		l.t.Fatal(err)
	}
	if live, err = p.stack.ListenTCP(netip.AddrPortFrom(netip.Addr{}, livePort)); err != nil {
		l.t.Fatal(err)
	}
	if local, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		l.t.Fatal(err)
	}
	return live, local, uint16(local.Addr().(*net.TCPAddr).Port)
}

// serveUntil has serve return, by stop, when the test ends.
func serveUntil(t *testing.T, serve func() error, stop func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = serve() // returns when it is stopped
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
}

// heard is what a server was told, in any order.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, fmt.Sprintf(format, args...))
}

func (h *heard) sorted() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(slices.Values(h.lines))
}

// persist connects without a deadline: what a connection carries may take as long as it
// takes.
func (l *laptop) persist(context.Context, string, string) (net.Conn, error) {
	c, err := l.dial(ordersPod, livePort)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// wantSame waits until the program has heard what the live server has.
func wantSame(t *testing.T, live, local *heard) {
	t.Helper()
	for end := time.Now().Add(3 * patience); !slices.Equal(live.sorted(), local.sorted()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the program heard (-live +program):\n%s", cmp.Diff(live.sorted(), local.sorted()))
		}
	}
}

// web is a server of HTTP that notes whole requests.
func (h *heard) web() *http.Server {
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.say("%s %s %s%s %q %q %q %d bytes %x", r.Proto, r.Method, r.Host, r.RequestURI, r.Header["X-A"], r.Header["Cookie"], r.Trailer["Sum"], len(body), sha(body))
		fmt.Fprintf(w, "%d bytes\n", len(body))
	})}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}

// sha is the SHA-256 of b.
func sha(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// TestMirrorHTTP2 mirrors net/http's client: requests at once on one connection, larger
// than any window, with trailers, of which a filter takes some.
func TestMirrorHTTP2(t *testing.T) {
	l := borrow(t)
	ln, localLn, port := l.listeners("orders")
	var live, local heard
	for h, at := range map[*heard]net.Listener{&live: ln, &local: localLn} {
		srv := h.web()
		serveUntil(t, func() error { return srv.Serve(at) }, func() { srv.Close() })
	}
	s := mirrorAs(t, l, session.Request{
		Ref: "orders", Mirror: []session.Mirror{{Port: livePort, To: port}}, Select: session.Selection{Filters: []string{"!path=/left/*"}},
	})
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: l.persist}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	var calls sync.WaitGroup
	const n = 30
	for i := range n {
		calls.Go(func() {
			text := make([]byte, rand.IntN(10<<10))
			if i < 4 {
				text = make([]byte, 200<<10+i)
			}
			for j := range text {
				text[j] = byte(rand.Uint32())
			}
			where := "taken"
			if i%3 == 0 {
				where = "left"
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://orders/%s/%d?q=%%2F", where, i), io.NopCloser(bytes.NewReader(text)))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header["X-A"] = []string{"1", "2"}
			req.AddCookie(&http.Cookie{Name: "c", Value: fmt.Sprint(i)})
			req.Trailer = http.Header{"Sum": {fmt.Sprint(len(text))}}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if answer, err := io.ReadAll(resp.Body); err != nil || string(answer) != fmt.Sprintf("%d bytes\n", len(text)) {
				t.Errorf("answer %q, %v", answer, err)
			}
		})
	}
	calls.Wait()
	live.mu.Lock()
	live.lines = slices.DeleteFunc(live.lines, func(line string) bool { return strings.Contains(line, "/left/") })
	live.mu.Unlock()
	wantSame(t, &live, &local)
	await(t, "every request has its fate", func() bool {
		r := s.Status(t.Context(), false).Mirror.Replay.Requests
		return r.Seen == n && r.Filtered == n/3 && r.Delivered == n-n/3
	})
}

// rpc is a server of gRPC's own test service that notes calls and messages.
type rpc struct {
	pb.UnimplementedTestServiceServer
	*heard
}

func (s rpc) UnaryCall(_ context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	s.say("unary %x", sha(req.GetPayload().GetBody()))
	return &pb.SimpleResponse{}, nil
}

// FullDuplexCall answers each message, and says what it heard of the whole.
func (s rpc) FullDuplexCall(stream grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	var all []string
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			s.say("stream of %d: %s", len(all), strings.Join(all, " "))
			return nil
		}
		if err != nil {
			return err
		}
		all = append(all, fmt.Sprintf("%x", sha(req.GetPayload().GetBody())))
		s.say("message %s", all[len(all)-1]) // it comes before the stream ends
		if err := stream.Send(&pb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// TestMirrorGRPC mirrors grpc-go: calls and streams at once; messages of a stream come as
// they are sent.
func TestMirrorGRPC(t *testing.T) {
	l := borrow(t)
	ln, localLn, port := l.listeners("orders")
	var live, local heard
	for h, at := range map[*heard]net.Listener{&live: ln, &local: localLn} {
		srv := grpc.NewServer()
		pb.RegisterTestServiceServer(srv, rpc{heard: h})
		serveUntil(t, func() error { return srv.Serve(at) }, srv.Stop)
	}
	s := mirror(t, l, "orders", session.Mirror{Port: livePort, To: port})
	conn, err := grpc.NewClient("passthrough:orders", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return l.persist(ctx, "tcp", addr) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewTestServiceClient(conn)
	stream, err := client.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	payload := func(n int) *pb.Payload { return &pb.Payload{Body: bytes.Repeat([]byte{byte(n)}, n)} }
	for _, n := range []int{1, 31415, 0, 258979} {
		if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: payload(n)}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{Payload: payload(n + 1)}); err != nil {
			t.Fatal(err)
		}
		wantSame(t, &live, &local) // though the stream goes on
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
	wantSame(t, &live, &local)
	await(t, "every call has its fate", func() bool {
		r := s.Status(t.Context(), false).Mirror.Replay.Requests
		return r.Seen == 5 && r.Delivered == 5
	})
}

// TestMirrorWebSocket mirrors a WebSocket, which HTTP/1 is upgraded to.
func TestMirrorWebSocket(t *testing.T) {
	l := borrow(t)
	ln, localLn, port := l.listeners("orders")
	var live, local heard
	for h, at := range map[*heard]net.Listener{&live: ln, &local: localLn} {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{}
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for {
				kind, message, err := c.ReadMessage()
				if err != nil {
					h.say("the end: %v", websocket.IsCloseError(err, websocket.CloseNormalClosure))
					return
				}
				h.say("kind %d, %d bytes %x", kind, len(message), sha(message))
				if err := c.WriteMessage(kind, message); err != nil {
					return
				}
			}
		})}
		serveUntil(t, func() error { return srv.Serve(at) }, func() { srv.Close() })
	}
	mirror(t, l, "orders", session.Mirror{Port: livePort, To: port})
	dialer := websocket.Dialer{NetDialContext: l.persist}
	c, _, err := dialer.DialContext(t.Context(), "ws://orders/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, n := range []int{1, 1000, 70000} {
		if err := c.WriteMessage(websocket.BinaryMessage, bytes.Repeat([]byte{byte(n)}, n)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadMessage(); err != nil {
			t.Fatal(err)
		}
		wantSame(t, &live, &local)
	}
	if err := c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("at the end: %v", err)
	}
	wantSame(t, &live, &local)
}

// TestMirrorPipelined mirrors requests that are sent without waiting for answers, one of
// them chunked with a trailer, to a pod's IPv6 address.
func TestMirrorPipelined(t *testing.T) {
	l := borrow(t)
	ln, localLn, port := l.listeners("ledger")
	var live, local heard
	for h, at := range map[*heard]net.Listener{&live: ln, &local: localLn} {
		srv := h.web()
		serveUntil(t, func() error { return srv.Serve(at) }, func() { srv.Close() })
	}
	mirror(t, l, "ledger", session.Mirror{Port: livePort, To: port})
	c := l.mustDial(ledgerPod6, livePort)
	const requests = "GET /1 HTTP/1.1\r\nHost: ledger\r\nX-A: 1\r\n\r\n" +
		"POST /2 HTTP/1.1\r\nHost: ledger\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n4;x=1\r\nbody\r\n00a\r\n0123456789\r\n0\r\nSum: 14\r\n\r\n" +
		"PUT /3 HTTP/1.1\r\nHost: ledger\r\nContent-Length: 3\r\n\r\n123" +
		"HEAD /4 HTTP/1.1\r\nHost: ledger\r\n\r\n"
	if _, err := io.WriteString(c, requests); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	for _, method := range []string{"GET", "POST", "PUT", "HEAD"} {
		resp, err := http.ReadResponse(answers, &http.Request{Method: method})
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %+v, %v", method, resp, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	wantSame(t, &live, &local)
	if got := live.sorted(); len(got) != 4 || !strings.Contains(strings.Join(got, "\n"), `["14"] 14 bytes`) {
		t.Errorf("the live server heard %q", got)
	}
}

// TestMirrorServerFirst mirrors a protocol in which the server greets, as MySQL's does:
// the program gets the client's bytes, once there are some. What answers a greeting
// answers the live server's, not the program's own.
func TestMirrorServerFirst(t *testing.T) {
	l := borrow(t)
	ln, localLn, port := l.listeners("orders")
	var live, local heard
	for h, at := range map[*heard]net.Listener{&live: ln, &local: localLn} {
		salt := fmt.Sprintf("%p", h) // each server has one of its own
		serveUntil(t, func() error {
			for {
				c, err := at.Accept()
				if err != nil {
					return err
				}
				fmt.Fprintf(c, "5.7 salt %s\n", salt)
				text, err := io.ReadAll(c)
				h.say("%s, %v", text, err)
				c.Close()
			}
		}, func() { at.Close() })
	}
	s := mirror(t, l, "orders", session.Mirror{Port: livePort, To: port})
	silent := l.mustDial(ordersPod, livePort)
	if _, err := bufio.NewReader(silent).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := silent.CloseWrite(); err != nil { // it leaves without a word
		t.Fatal(err)
	}
	if _, err := io.ReadAll(silent); err != nil {
		t.Fatal(err)
	}
	c := l.mustDial(ordersPod, livePort)
	r := bufio.NewReader(c)
	greeting, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "\x01login with %s\x02query", strings.TrimSpace(greeting)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	want := []string{"\x01login with " + strings.TrimSpace(greeting) + "\x02query, <nil>"}
	await(t, "the program has heard the client", func() bool { return len(local.sorted()) > 0 })
	if diff := cmp.Diff(want, local.sorted()); diff != "" {
		t.Errorf("the program heard (-want +got):\n%s", diff)
	}
	if st := s.Status(t.Context(), false).Mirror.Replay.Streams; st.Seen != 1 {
		t.Errorf("streams %+v", st)
	}
}

// TestMirrorShortConnections mirrors connections of one request each (`make soak`: 10 000).
func TestMirrorShortConnections(t *testing.T) {
	n := 500
	if os.Getenv("BORROWNET_SOAK") != "" {
		n = 10_000
	}
	l := borrow(t)
	ln, localLn, port := l.listeners("orders")
	var live, local heard
	for h, at := range map[*heard]net.Listener{&live: ln, &local: localLn} {
		srv := h.web()
		serveUntil(t, func() error { return srv.Serve(at) }, func() { srv.Close() })
	}
	s := mirror(t, l, "orders", session.Mirror{Port: livePort, To: port})
	ids := make(chan int)
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			tr := &http.Transport{DisableKeepAlives: true, DialContext: l.persist}
			for id := range ids {
				resp, err := (&http.Client{Transport: tr}).Post(fmt.Sprintf("http://orders/%d", id), "text/plain", strings.NewReader(fmt.Sprint(id)))
				if err != nil {
					t.Error(err)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	for id := range n {
		ids <- id
	}
	close(ids)
	callers.Wait()
	wantSame(t, &live, &local)
	await(t, "every request has its fate", func() bool {
		r := s.Status(t.Context(), false).Mirror.Replay
		return r.Requests.Seen == uint64(n) && r.Requests.Delivered == uint64(n) && r.Opened == uint64(n)
	})
}
