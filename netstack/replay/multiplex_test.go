package replay

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
	"github.com/borrownet/borrownet/netstack/relay"
)

// side makes what one side of an HTTP/2 connection says, frame by frame.
type side struct {
	*http2.Framer
	said  bytes.Buffer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newSide() *side {
	s := &side{}
	s.Framer = http2.NewFramer(&s.said, nil)
	s.enc = hpack.NewEncoder(&s.block)
	return s
}

// take returns what was said since the last time.
func (s *side) take() string {
	defer s.said.Reset()
	return s.said.String()
}

// head says the head of a message, or its trailers: name, value, name, value.
func (s *side) head(stream uint32, end bool, kv ...string) string {
	s.block.Reset()
	for i := 0; i < len(kv); i += 2 {
		s.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]}) // into memory
	}
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: bytes.Clone(s.block.Bytes()), EndStream: end, EndHeaders: true})
	return s.take()
}

// ask says the head of a request.
func (s *side) ask(stream uint32, end bool, method, path string, more ...string) string {
	return s.head(stream, end, append([]string{":method", method, ":scheme", "http", ":authority", "example.org", ":path", path}, more...)...)
}

func (s *side) body(stream uint32, end bool, text string) string {
	for len(text) > 16<<10 {
		s.WriteData(stream, false, []byte(text[:16<<10]))
		text = text[16<<10:]
	}
	s.WriteData(stream, end, []byte(text))
	return s.take()
}

func (s *side) reset(stream uint32) string {
	s.WriteRSTStream(stream, http2.ErrCodeCancel)
	return s.take()
}

// hello is how a client begins.
func (s *side) hello() string {
	s.WriteSettings()
	return http2.ClientPreface + s.take()
}

// server2 is a local program that speaks HTTP/2, as net/http does.
type server2 struct {
	at string

	mu     sync.Mutex
	heard  []string // requests, in the order in which they were complete
	begun  []string // their targets, in the order in which they began
	closed int      // that were given up
}

// serve2 runs a local program until the test ends. handle may be nil.
func serve2(t *testing.T, protocols string, handle http.HandlerFunc) *server2 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server2{at: ln.Addr().String()}
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.begun = append(s.begun, r.RequestURI)
		s.mu.Unlock()
		if handle != nil {
			handle(w, r)
		}
		s.hear(r)
	})}
	srv.Protocols.SetHTTP1(protocols == "http/1")
	srv.Protocols.SetUnencryptedHTTP2(protocols == "http/2")
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) }) // until Close
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return s
}

// hear notes a request.
func (s *server2) hear(r *http.Request) {
	text, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.closed++
		return
	}
	var fields []string
	for name, values := range r.Header {
		fields = append(fields, fmt.Sprintf(" %s=%s", name, strings.Join(values, "|")))
	}
	for name, values := range r.Trailer {
		fields = append(fields, fmt.Sprintf(" trailer-%s=%s", name, strings.Join(values, "|")))
	}
	slices.Sort(fields)
	if len(text) > 100 {
		text = fmt.Appendf(nil, "%d bytes", len(text))
	}
	s.heard = append(s.heard, fmt.Sprintf("%s %s%s %s%s %q", r.Proto, r.Method, r.Host, r.RequestURI, strings.Join(fields, ""), text))
}

func (s *server2) dial(ctx context.Context, _ Call) (relay.Conn, error) {
	d := net.Dialer{Timeout: patience} // a busy machine may take longer than the Replayer waits for
	c, err := d.DialContext(context.WithoutCancel(ctx), "tcp", s.at)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func TestMultiplex(t *testing.T) {
	leaktest.Check(t)
	big := strings.Repeat("0123456789abcdef", 20_000) // more than any window at the beginning
	filter, err := ParseFilter("path=/taken/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		speaks   string // of the local program; "" = HTTP/2
		cfg      Config
		handle   http.HandlerFunc
		play     func(c *mirrortest.Conversation, s *side)
		heard    []string // whole
		requests Outcomes
		waiting  map[string]int64
	}{
		{
			name: "one", heard: []string{`HTTP/2.0 GETexample.org /a%2Fb?c=d&e Accept=x|y ""`},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, true, "GET", "/a%2Fb?c=d&e", "accept", "x", "accept", "y"))
			},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "body-and-trailers", heard: []string{`HTTP/2.0 POSTexample.org /p Content-Type=application/grpc Te=trailers User-Agent=grpc-go trailer-Sum=11 "hello world"`},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, false, "POST", "/p", "content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go", "trailer", "sum"))
				c.Answer("whatever")
				c.Ask(s.body(1, false, "hello "))
				c.Ask(s.body(1, false, "world") + s.head(1, true, "sum", "11"))
			},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "streams-at-once", heard: []string{`HTTP/2.0 PUTexample.org /1 "1111"`, `HTTP/2.0 PUTexample.org /3 "33"`},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, false, "PUT", "/1") + s.ask(3, false, "PUT", "/3") + s.body(1, false, "11") + s.body(3, false, "3"))
				c.Ask(s.body(3, true, "3") + s.body(1, true, "11"))
			},
			requests: Outcomes{Seen: 2, Delivered: 2},
		},
		{
			name: "two-slashes", heard: []string{`HTTP/2.0 GETexample.org //example.org/1 ""`, `HTTP/2.0 GETexample.org //other/3 ""`, `HTTP/2.0 GETprogram:80 //5 ""`},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, true, "GET", "//example.org/1") + s.ask(3, true, "GET", "//other/3"))
				c.Ask(s.head(5, true, ":method", "GET", ":scheme", "http", ":path", "//5"))
			},
			requests: Outcomes{Seen: 3, Delivered: 3},
		},
		{
			name: "more-than-the-programs-windows", heard: []string{`HTTP/2.0 POSTexample.org /big Content-Length=320000 "320000 bytes"`},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, false, "POST", "/big", "content-length", fmt.Sprint(len(big))))
				for piece := range slices.Chunk([]byte(s.body(1, true, big)), 40_000) {
					c.Ask(string(piece))
				}
			},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "filters-and-probes", heard: []string{`HTTP/2.0 POSTexample.org /taken/1 "body"`},
			cfg: Config{Select: Selection{Filters: []Filter{filter}}},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, false, "POST", "/left", "x", "y") + s.body(1, true, "body"))
				c.Ask(s.ask(3, false, "POST", "/taken/1") + s.body(3, true, "body"))
				c.Ask(s.ask(5, true, "POST", "/grpc.health.v1.Health/Check", "user-agent", "kube-probe/1.34 grpc-go/1.72"))
			},
			requests: Outcomes{Seen: 3, Delivered: 1, Filtered: 1, Probes: 1},
		},
		{
			name: "given-up-by-the-client", // before the program has heard of it, or then
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, false, "POST", "/a") + s.body(1, false, "half"))
				c.Ask(s.reset(1))
			},
			requests: Outcomes{Seen: 1, Cut: 1},
		},
		{
			name: "not-answered-before-the-client-gives-up", heard: []string{`HTTP/2.0 GETexample.org /watch ""`},
			handle: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, true, "GET", "/watch"))
				c.Ask(s.reset(1))
			},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "hole", heard: []string{`HTTP/2.0 GETexample.org /1 ""`},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, true, "GET", "/1") + s.ask(3, false, "POST", "/3"))
				c.Client++
				c.Ask(s.body(3, true, "body")) // what it belongs to is not known
				c.Ask(s.ask(5, true, "GET", "/5"))
			},
			requests: Outcomes{Seen: 2, Delivered: 1, Cut: 1}, waiting: map[string]int64{"http/2": 1},
		},
		{
			name: "malformed", heard: []string{`HTTP/2.0 GETexample.org /1 ""`},
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, true, "GET", "/1"))
				c.Ask("\x00\x00\x00\x09\x04\x00\x00\x00\x03")
				c.Ask(s.ask(5, true, "GET", "/5"))
			},
			requests: Outcomes{Seen: 1, Delivered: 1}, waiting: map[string]int64{"http/2": 1},
		},
		{
			name: "a-program-of-http1", speaks: "http/1", // which net/http tells of
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, true, "GET", "/1"))
			},
			requests: Outcomes{Seen: 1, Broken: 1},
		},
		{
			name:   "a-program-that-fails",
			handle: func(_ http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
			play: func(c *mirrortest.Conversation, s *side) {
				c.Ask(s.hello() + s.ask(1, true, "GET", "/1"))
			},
			requests: Outcomes{Seen: 1, Broken: 1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			speaks := "http/2"
			if tt.speaks != "" {
				speaks = tt.speaks
			}
			p := serve2(t, speaks, tt.handle)
			tt.cfg.Dial = p.dial
			r := replaying(t, nil, tt.cfg)
			c := mirrortest.New(client, server, r.Packet)
			c.Open()
			tt.play(c, newSide())
			s := settled(t, r)
			if diff := cmp.Diff(tt.requests, s.Requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.waiting, s.Waiting); diff != "" {
				t.Errorf("waiting (-want +got):\n%s", diff)
			}
			if (tt.requests.Broken > 0) != (s.Problem != "") {
				t.Errorf("problem %q", s.Problem)
			}
			if speaks == "http/2" {
				wantHeard(t, p, tt.heard)
			}
		})
	}
}

// wantHeard waits until the program has heard what it should.
func wantHeard(t *testing.T, p *server2, want []string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		got := slices.Sorted(slices.Values(p.heard))
		p.mu.Unlock()
		if slices.Equal(want, got) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("heard (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
}

// begins waits until n requests have begun.
func (s *server2) begins(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		begun := len(s.begun)
		s.mu.Unlock()
		if begun >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests begin, want %d", begun, n)
		}
	}
}

// TestMultiplexGivesUp: what the client gives up halfway the program hears to be given
// up, and so it does with a stream of which bytes are missing in the capture.
func TestMultiplexGivesUp(t *testing.T) {
	leaktest.Check(t)
	p := serve2(t, "http/2", nil)
	r := replaying(t, nil, Config{Dial: p.dial})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello() + s.ask(1, false, "POST", "/1") + s.body(1, false, "half"))
	c.Ask(s.ask(3, false, "POST", "/3") + s.body(3, false, "half"))
	p.begins(t, 2)
	c.Ask(s.reset(1))
	c.Client++
	c.Ask(s.body(3, true, "rest"))
	if got := settled(t, r).Requests; got != (Outcomes{Seen: 2, Cut: 2}) {
		t.Errorf("requests %+v", got)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		closed, heard := p.closed, p.heard
		p.mu.Unlock()
		if closed == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d were given up, and heard %q", closed, heard)
		}
	}
}

// fewAtATime is a program that takes three requests at a time, and answers the older of
// two first. It notes paths in the order of the connection.
func fewAtATime(c net.Conn, paths chan<- string) error {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	in := http2.NewFramer(c, c)
	in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	answer := newSide()
	in.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3})
	var open []uint32
	for {
		f, err := in.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				in.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				in.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			paths <- f.PseudoValue("path")
		}
		if f.Header().Flags.Has(http2.FlagHeadersEndStream) && (f.Header().Type == http2.FrameHeaders || f.Header().Type == http2.FrameData) {
			open = append(open, f.Header().StreamID)
		}
		if len(open) > 1 {
			io.WriteString(c, answer.head(open[0], true, ":status", "204"))
			open = open[1:]
		}
	}
}

// TestMultiplexKeepsOrder: requests that are under way together begin in their order,
// also when the program is slow and takes few at a time.
func TestMultiplexKeepsOrder(t *testing.T) {
	leaktest.Check(t)
	const n = 300
	paths := make(chan string, n)
	p := start(t, func(c *net.TCPConn, r *bufio.Reader) {
		_ = fewAtATime(&readingFirst{Conn: c, r: r}, paths) // until the other side ends
	})
	r := replaying(t, p, Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello())
	for i := range n {
		stream := uint32(2*i + 1)
		c.Ask(s.ask(stream, i%3 > 0, "POST", fmt.Sprintf("/%d", i)))
		if i%3 == 0 {
			c.Ask(s.body(stream, true, "body"))
		}
	}
	for i := range n {
		select {
		case got := <-paths:
			if want := fmt.Sprintf("/%d", i); got != want {
				t.Fatalf("%s begins before %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("request %d does not begin", i)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got := r.Stats().Requests
		if got == (Outcomes{Seen: n, Delivered: n - 1}) { // the last one waits for its answer
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("requests %+v", got)
		}
	}
}

// readingFirst is a conn of which something was read.
type readingFirst struct {
	net.Conn
	r *bufio.Reader
}

func (c *readingFirst) Read(b []byte) (int, error) { return c.r.Read(b) }

// TestMultiplexOfASlowProgram: what waits for a program that does not read is bounded;
// the request is given up and the others go on.
func TestMultiplexOfASlowProgram(t *testing.T) {
	leaktest.Check(t)
	p := serve2(t, "http/2", func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	})
	r := replaying(t, nil, Config{Dial: p.dial, FlowBuffer: 1 << 20})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello() + s.ask(1, false, "POST", "/slow"))
	piece := strings.Repeat("x", 16<<10)
	for r.Stats().Requests.Slow == 0 {
		if held := r.Stats().Held; held > 2<<20 {
			t.Fatalf("%d bytes are held", held)
		}
		c.Ask(s.body(1, false, piece))
	}
	c.Ask(s.ask(3, true, "GET", "/quick"))
	c.Close()
	if got := settled(t, r).Requests; got != (Outcomes{Seen: 2, Delivered: 1, Slow: 1}) {
		t.Errorf("requests %+v", got)
	}
	if held := r.Stats().Held; held != 0 {
		t.Errorf("%d bytes are held in the end", held)
	}
}

// TestMultiplexWithoutAProgram is refused, and says so.
func TestMultiplexWithoutAProgram(t *testing.T) {
	leaktest.Check(t)
	refuse := func(context.Context, Call) (relay.Conn, error) { return nil, syscall.ECONNREFUSED }
	r := replaying(t, nil, Config{Dial: refuse})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello() + s.ask(1, true, "GET", "/1") + s.ask(3, true, "GET", "/3"))
	st := settled(t, r)
	if st.Requests != (Outcomes{Seen: 2, Refused: 2}) || !strings.Contains(st.Problem, "refused") {
		t.Errorf("stats %+v", st)
	}
}

// TestMultiplexAnew: a program that closes its connection after some time gets a new
// one for the next request.
func TestMultiplexAnew(t *testing.T) {
	leaktest.Check(t)
	p := serve2(t, "http/2", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	var dials []bool // whether it was again
	r := replaying(t, nil, Config{Dial: func(ctx context.Context, call Call) (relay.Conn, error) {
		dials = append(dials, call.Again)
		return p.dial(ctx, call)
	}})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello())
	for i := range uint32(3) {
		c.Ask(s.ask(2*i+1, true, "GET", fmt.Sprintf("/%d", i)))
		if got := settled(t, r).Requests.Delivered; got != uint64(i+1) {
			t.Fatalf("%d are delivered, want %d", got, i+1)
		}
	}
	if len(dials) == 0 || dials[0] || len(dials) > 1 && !dials[1] {
		t.Errorf("dialled again: %v", dials)
	}
}

// frames is a program that reads frames from c, once it has said its settings and answered
// the client's, until on returns false or the other side ends.
func frames(c *net.TCPConn, r *bufio.Reader, on func(*http2.Framer, http2.Frame) bool) {
	if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	in := http2.NewFramer(c, r)
	in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	in.WriteSettings()
	for {
		f, err := in.ReadFrame()
		if err != nil {
			return
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			in.WriteSettingsAck()
		}
		if !on(in, f) {
			return
		}
	}
}

// TestMultiplexBesideALongOne: a program that takes no more requests on a connection, on
// which one is still under way, gets a new one for the next.
func TestMultiplexBesideALongOne(t *testing.T) {
	leaktest.Check(t)
	drains := make(chan struct{})
	first := make(chan bool, 1)
	first <- true
	p := start(t, func(c *net.TCPConn, r *bufio.Reader) {
		long := false
		select {
		case long = <-first:
		default:
		}
		answer := newSide()
		frames(c, r, func(in *http2.Framer, f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				if !long {
					io.WriteString(c, answer.head(f.StreamID, true, ":status", "204"))
					break
				}
				in.WriteGoAway(f.StreamID, http2.ErrCodeNo, nil)
				in.WritePing(false, [8]byte{1})
			case *http2.PingFrame:
				if f.IsAck() {
					close(drains) // the other side has read what was before the ping
				}
			}
			return true
		})
	})
	r := replaying(t, p, Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello() + s.ask(1, true, "GET", "/long"))
	<-drains
	c.Ask(s.ask(3, true, "GET", "/3"))
	c.Ask(s.ask(5, true, "GET", "/5"))
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got := r.Stats()
		if got.Requests == (Outcomes{Seen: 3, Delivered: 2}) && got.Repeated == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("stats %+v", got)
		}
	}
}

// TestMultiplexNotTaken: a request that the client gave up, and that the program does not
// take, ends.
func TestMultiplexNotTaken(t *testing.T) {
	leaktest.Check(t)
	begun := make(chan struct{})
	p := start(t, func(c *net.TCPConn, r *bufio.Reader) {
		frames(c, r, func(_ *http2.Framer, f http2.Frame) bool { // which widens no window
			if _, ok := f.(*http2.MetaHeadersFrame); ok {
				close(begun)
			}
			return true
		})
	})
	held := make(chan int64, 1) // when it was told what became of the request
	var r *Replayer
	r = replaying(t, p, Config{Linger: 100 * time.Millisecond, OnRequest: func(Request) { held <- r.Stats().Held }})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello() + s.ask(1, false, "POST", "/1"))
	for range 20 {
		c.Ask(s.body(1, false, strings.Repeat("x", 10_000)))
	}
	c.Ask(s.body(1, true, ""))
	<-begun
	c.Ask(s.reset(1))
	if got := settled(t, r); got.Requests != (Outcomes{Seen: 1, Broken: 1}) || got.Held != 0 {
		t.Errorf("stats %+v", got)
	}
	if n := <-held; n != 0 {
		t.Errorf("%d bytes are held of a request that is over", n)
	}
}

// TestMultiplexEnds: a client that is gone leaves the program some time to answer, and
// no more.
func TestMultiplexEnds(t *testing.T) {
	leaktest.Check(t)
	p := serve2(t, "http/2", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := replaying(t, nil, Config{Dial: p.dial, Linger: time.Second})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	s := newSide()
	c.Ask(s.hello() + s.ask(1, true, "GET", "/1"))
	p.begins(t, 1)
	c.FromClient(flow.RST, "")
	st := settled(t, r)
	if st.Requests != (Outcomes{Seen: 1, Delivered: 1}) || st.Unanswered != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestMultiplexDifferences compares answers of HTTP/2, with their trailers.
func TestMultiplexDifferences(t *testing.T) {
	leaktest.Check(t)
	p := serve2(t, "http/2", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("X-Same", "1")
		io.WriteString(w, `{"who":"local"}`)
		w.Header().Set("Grpc-Status", "5")
	})
	told := make(chan Difference, 8)
	r := replaying(t, nil, Config{Dial: p.dial, OnDifference: func(d Difference) { told <- d }})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	ask, live := newSide(), newSide()
	live.WriteSettings()
	c.Answer(live.take()) // some servers begin
	c.Ask(ask.hello() + ask.ask(1, true, "GET", "/1"))
	c.Answer(live.head(1, false, ":status", "200", "x-same", "1", "trailer", "Grpc-Status", "content-type", "text/plain; charset=utf-8") +
		live.body(1, false, `{"who":`) + live.body(1, false, `"live"}`) + live.head(1, true, "grpc-status", "0"))
	c.Ask(ask.ask(3, true, "GET", "/3"))
	c.Answer(live.reset(3))
	c.Close()
	settled(t, r)
	got := map[string][]Differs{}
	for range 2 {
		select {
		case d := <-told:
			got[d.Target] = d.Differs
		case <-time.After(patience):
			t.Fatalf("told of %v only", got)
		}
	}
	want := map[string][]Differs{
		"/1": {{"trailer:Grpc-Status", "0", "5"}, {"$.who", `"live"`, `"local"`}},
		"/3": {{"answer", "reset", "200"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
