package replay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
	"github.com/borrownet/borrownet/netstack/relay"
)

var (
	client = netip.MustParseAddrPort("203.0.113.7:40000")
	other  = netip.MustParseAddrPort("203.0.113.8:40000")
	server = netip.MustParseAddrPort("192.0.2.10:8080")
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// program is a local program. It notes what each of its connections says.
type program struct {
	ln net.Listener
	// serve answers on a connection, whose bytes are noted as they are read.
	serve func(c *net.TCPConn, r *bufio.Reader)
	wg    sync.WaitGroup

	mu    sync.Mutex
	conns []*bytes.Buffer
}

// start runs a program until the test ends.
func start(t *testing.T, serve func(*net.TCPConn, *bufio.Reader)) *program {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &program{ln: ln, serve: serve}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.wg.Wait()
	})
	return p
}

func (p *program) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		said := &bytes.Buffer{}
		p.mu.Lock()
		p.conns = append(p.conns, said)
		p.mu.Unlock()
		p.wg.Go(func() {
			defer c.Close()
			p.serve(c.(*net.TCPConn), bufio.NewReader(noting{c, p, said}))
		})
	}
}

// noting notes what is read.
type noting struct {
	net.Conn
	p    *program
	said *bytes.Buffer
}

func (n noting) Read(b []byte) (int, error) {
	k, err := n.Conn.Read(b)
	n.p.mu.Lock()
	n.said.Write(b[:k])
	n.p.mu.Unlock()
	return k, err
}

// heard returns what each connection has said so far.
func (p *program) heard() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, c := range p.conns {
		out = append(out, c.String())
	}
	return out
}

func (p *program) dial(ctx context.Context, _ Call) (relay.Conn, error) {
	d := net.Dialer{Timeout: patience} // a busy machine may take longer than the Replayer waits for
	c, err := d.DialContext(context.WithoutCancel(ctx), "tcp", p.ln.Addr().String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// answering answers requests.
func answering(c *net.TCPConn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if req.Header.Get("Upgrade") == "echo" {
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nwelcome")
			io.Copy(c, r)
			return
		}
		fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
		if req.Method == http.MethodHead {
			fmt.Fprint(c, "Content-Length: 1000\r\n\r\n")
		} else {
			fmt.Fprint(c, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		}
	}
}

// closing answers one request per connection, as HTTP/1.0 servers do.
func closing(c *net.TCPConn, r *bufio.Reader) {
	if _, err := http.ReadRequest(r); err == nil {
		fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\nhello")
	}
}

// listening hears to the end.
func listening(_ *net.TCPConn, r *bufio.Reader) { io.Copy(io.Discard, r) }

// replaying returns a Replayer for a program.
func replaying(t *testing.T, p *program, cfg Config) *Replayer {
	t.Helper()
	cfg.Ports = map[uint16]uint16{server.Port(): 3000}
	cfg.Servers = []netip.Addr{server.Addr()}
	if cfg.Dial == nil {
		cfg.Dial = p.dial
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return r
}

// settled waits until everything that was seen has a fate, and returns the stats.
func settled(t *testing.T, r *Replayer) Stats {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s := r.Stats()
		if s.Requests.Seen == s.Requests.sum() && s.Streams.Seen == s.Streams.sum() {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("still under way: %+v", s)
		}
	}
}

func (o Outcomes) sum() uint64 {
	return o.Delivered + o.Probes + o.Filtered + o.Sampled + o.Capped + o.Refused + o.Broken + o.Slow + o.Cut
}

const (
	get     = "GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n"
	head    = "HEAD /b HTTP/1.1\r\nhOST:   example.org\r\n\r\n"
	post    = "POST /c HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\n\r\nbody"
	chunked = "PUT /d HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n4;x=1\r\nbody\r\n00a\r\n0123456789\r\n0\r\nSum: 14\r\n\r\n"
	upgrade = "GET /e HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"
	unclear = "PUT /f HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nno size\r\nbody"
	health  = "GET /healthz HTTP/1.1\r\nHost: example.org\r\nUser-Agent: kube-probe/1.34\r\n\r\n"
)

func TestDelivery(t *testing.T) {
	leaktest.Check(t)
	for _, tt := range []struct {
		name     string
		serve    func(*net.TCPConn, *bufio.Reader)
		cfg      Config
		play     func(c *mirrortest.Conversation)
		heard    []string
		requests Outcomes
		streams  Outcomes
	}{
		{
			name: "keep-alive", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				for _, ask := range []string{get, head, post, chunked} {
					c.Ask(ask)
					c.Answer("whatever")
				}
				c.Close()
			},
			heard:    []string{get + head + post + chunked},
			requests: Outcomes{Seen: 4, Delivered: 4},
		},
		{
			name: "byte-by-byte", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				for _, b := range []byte(get + chunked + post) {
					c.Ask(string(b))
				}
				c.Close()
			},
			heard:    []string{get + chunked + post},
			requests: Outcomes{Seen: 3, Delivered: 3},
		},
		{
			name: "pipelined", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(get + chunked + post + get[:9])
				c.Ask(get[9:])
				c.Close()
			},
			heard:    []string{get + chunked + post + get},
			requests: Outcomes{Seen: 4, Delivered: 4},
		},
		{
			name: "local-program-closes-after-each-answer", serve: closing,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(get)
				c.Ask(head)
				c.Close()
			},
			heard:    []string{get, head},
			requests: Outcomes{Seen: 2, Delivered: 2},
		},
		{
			name: "client-resets-after-the-answer", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(get)
				c.Answer("whatever")
				c.FromClient(flow.RST, "")
			},
			heard:    []string{get},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "upgrade", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(upgrade)
				c.Answer("HTTP/1.1 101 Switching Protocols\r\n\r\n")
				c.Ask("\x81\x05hello")
				c.Ask("more")
				c.Close()
			},
			heard:    []string{upgrade + "\x81\x05hellomore"},
			requests: Outcomes{Seen: 1, Delivered: 1},
			streams:  Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "upgrade-that-the-local-program-does-not-want", serve: closing,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(upgrade)
				c.Answer("HTTP/1.1 101 Switching Protocols\r\n\r\n")
				c.Ask("\x81\x05hello")
				c.Close()
			},
			heard:    []string{upgrade},
			requests: Outcomes{Seen: 1, Delivered: 1},
			streams:  Outcomes{Seen: 1, Refused: 1},
		},
		{
			name: "upgrade-that-the-live-program-does-not-want", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(strings.Replace(upgrade, "Upgrade: echo", "Upgrade: h2c", 1))
				c.Ask(get)
				c.Close()
			},
			heard:    []string{strings.Replace(upgrade, "Upgrade: echo", "Upgrade: h2c", 1) + get},
			requests: Outcomes{Seen: 2, Delivered: 2},
		},
		{
			name: "other-protocols-are-streams", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Answer("5.5.5-live-greeting")
				c.Ask("\x01\x02query")
				c.Ask("more")
				c.Close()
			},
			heard:   []string{"\x01\x02querymore"},
			streams: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "http2", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(http1.Preface[:10])
				c.Ask(http1.Preface[10:] + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
				c.Close()
			},
		},
		{
			name: "short-text-without-a-line-end", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask("HELLO there")
				c.Close()
			},
			heard:   []string{"HELLO there"},
			streams: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "a-request-that-only-the-live-program-understands", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask("GET / HTTP/1.1\r\nbad header\r\n\r\nand so on")
				c.Close()
			},
			heard:   []string{"GET / HTTP/1.1\r\nbad header\r\n\r\nand so on"},
			streams: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "tls-is-skipped", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask("\x16\x03\x01\x00\x05hello")
				c.Close()
			},
		},
		{
			name: "nothing-said-nothing-dialled", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Close()
			},
		},
		{
			name: "health-probes-are-left-out", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(health)
				c.Ask(get)
				c.Close()
			},
			heard:    []string{get},
			requests: Outcomes{Seen: 2, Delivered: 1, Probes: 1},
		},
		{
			name: "unless-asked-for", serve: answering, cfg: Config{Select: Selection{Probes: true}},
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(health)
				c.Close()
			},
			heard:    []string{health},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "hole-in-a-request", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(post[:len(post)-2])
				c.Client++
				c.Ask(post[len(post)-1:])
				c.Close()
			},
			heard:    []string{post[:len(post)-2]},
			requests: Outcomes{Seen: 1, Cut: 1},
		},
		{
			name: "hole-in-a-stream", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask("\x01one")
				c.Client++
				c.Ask("two")
				c.Close()
			},
			heard:   []string{"\x01one"},
			streams: Outcomes{Seen: 1, Cut: 1},
		},
		{
			name: "request-that-does-not-end", serve: listening,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(post[:len(post)-2])
				c.FromClient(flow.RST, "")
			},
			heard:    []string{post[:len(post)-2]},
			requests: Outcomes{Seen: 1, Cut: 1},
		},
		{
			name: "joined-at-the-next-request", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Ask("the end of a body, and GET /x HTTP/1.1\r\n\r\n")
				c.Ask(get) // no answer was seen: it may be more of the body
				c.Answer("whatever")
				c.Ask(post)
				c.Close()
			},
			heard:    []string{post},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "joined-while-it-rests", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.FromServer(flow.ACK, "")
				c.Ask(get)
				c.Close()
			},
			heard:    []string{get},
			requests: Outcomes{Seen: 1, Delivered: 1},
		},
		{
			name: "joined-again-behind-a-hole", serve: answering,
			play: func(c *mirrortest.Conversation) {
				c.Open()
				c.Ask(get)
				c.Answer("whatever")
				c.Client += uint32(len(post))
				c.FromServer(flow.ACK, "whatever")
				c.Ask(head)
				c.Close()
			},
			heard:    []string{get + head},
			requests: Outcomes{Seen: 2, Delivered: 2},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, tt.serve)
			r := replaying(t, p, tt.cfg)
			tt.play(mirrortest.New(client, server, r.Packet))
			s := settled(t, r)
			if diff := cmp.Diff(tt.requests, s.Requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.streams, s.Streams); diff != "" {
				t.Errorf("streams (-want +got):\n%s", diff)
			}
			var heard []string
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				if heard = p.heard(); cmp.Equal(tt.heard, heard) {
					break
				}
			}
			if diff := cmp.Diff(tt.heard, heard); diff != "" {
				t.Errorf("the local program heard (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNames tells flows of which nothing can be told.
func TestNames(t *testing.T) {
	p := start(t, listening)
	r := replaying(t, p, Config{})
	play := func(port uint16, open bool, said string) *mirrortest.Conversation {
		c := mirrortest.New(netip.AddrPortFrom(client.Addr(), port), server, r.Packet)
		if open {
			c.Open()
		}
		c.Ask(said)
		return c
	}
	play(1, true, "\x16\x03\x01\x00\x05hello")
	play(2, false, "\x17\x03\x03\x00\x05hello")
	play(3, false, "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x10\x00")
	c := play(4, false, "who knows")
	s := r.Stats()
	if diff := cmp.Diff(map[string]int64{"tls": 2, "http/2": 1, "unknown": 1}, s.Waiting); diff != "" {
		t.Errorf("waiting (-want +got):\n%s", diff)
	}
	if s.TLS != 1 || s.Before != 3 || s.Opened != 1 || s.Skipped == 0 {
		t.Errorf("stats %+v", s)
	}
	c.Answer("whatever")
	c.Ask(get)
	if s := r.Stats(); s.Waiting["unknown"] != 0 || s.Joined != 1 {
		t.Errorf("after it was joined: %+v", s)
	}
}

// TestRefused has no local program.
func TestRefused(t *testing.T) {
	refusing := func(context.Context, Call) (relay.Conn, error) {
		return nil, errors.New("nobody listens")
	}
	r := replaying(t, nil, Config{Dial: refusing})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask(get)
	c.Ask(post)
	c.Close()
	raw := mirrortest.New(netip.AddrPortFrom(client.Addr(), 1), server, r.Packet)
	raw.Open()
	raw.Ask("\x01one")
	raw.Ask("two")
	raw.Close()
	s := settled(t, r)
	if diff := cmp.Diff(Outcomes{Seen: 2, Refused: 2}, s.Requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Outcomes{Seen: 1, Refused: 1}, s.Streams); diff != "" {
		t.Errorf("streams (-want +got):\n%s", diff)
	}
	if s.Problem != "nobody listens" {
		t.Errorf("problem %q", s.Problem)
	}
}

// TestSlowProgram answers nothing and reads nothing: what is given up is counted,
// memory is bounded, and the packets never wait.
func TestSlowProgram(t *testing.T) {
	leaktest.Check(t)
	stuck := make(chan struct{})
	p := start(t, func(*net.TCPConn, *bufio.Reader) { <-stuck })
	defer close(stuck)
	const limit = 256 << 10
	r := replaying(t, p, Config{FlowBuffer: limit, Buffer: 2 * limit, Linger: time.Millisecond})
	body := strings.Repeat("x", 10_000)
	ask := fmt.Sprintf("POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: %d\r\n\r\n", len(body)*1000)
	for port := range uint16(4) {
		c := mirrortest.New(netip.AddrPortFrom(client.Addr(), port+1), server, r.Packet)
		c.Open()
		if port == 0 {
			c.Ask("\x01")
		} else {
			c.Ask(ask)
		}
		for range 1000 {
			c.Ask(body)
			if held := r.Stats().Held; held > 2*limit+64<<10 {
				t.Fatalf("%d bytes held", held)
			}
		}
		for range 10 {
			c.Ask(get)
		}
		c.Close()
	}
	s := settled(t, r)
	if s.Requests.Slow == 0 || s.Streams.Slow != 1 || s.Requests.Seen != 33 {
		t.Errorf("stats %+v", s)
	}
}

// TestWait gives nothing up.
func TestWait(t *testing.T) {
	p := start(t, func(c *net.TCPConn, r *bufio.Reader) {
		io.Copy(io.Discard, iotestSlow{r})
	})
	r := replaying(t, p, Config{FlowBuffer: 64 << 10, Buffer: 64 << 10, Wait: true})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	var want strings.Builder
	for i := range 500 {
		said := fmt.Sprintf("\x01%d %s", i, strings.Repeat("x", 10_000))
		want.WriteString(said)
		c.Ask(said)
	}
	c.Close()
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if heard := p.heard(); len(heard) != 1 || heard[0] != want.String() {
		t.Errorf("%d connections, not all was heard", len(heard))
	}
	if s := r.Stats(); s.Streams.Delivered != 1 {
		t.Errorf("stats %+v", s)
	}
}

// iotestSlow reads little at a time.
type iotestSlow struct{ r io.Reader }

func (s iotestSlow) Read(b []byte) (int, error) { return s.r.Read(b[:min(len(b), 1000)]) }

// TestCrash ends the local program in the middle.
func TestCrash(t *testing.T) {
	p := start(t, func(c *net.TCPConn, r *bufio.Reader) {
		http.ReadRequest(r)
		c.SetLinger(0)
	})
	r := replaying(t, p, Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask(get)
	c.Ask(head)
	c.Close()
	s := settled(t, r)
	if s.Requests.Delivered+s.Requests.Broken != 2 || s.Unanswered != s.Requests.Delivered {
		t.Errorf("stats %+v", s)
	}
}

// TestManyFlows opens many flows at once and uses their addresses again.
func TestManyFlows(t *testing.T) {
	leaktest.Check(t)
	p := start(t, answering)
	r := replaying(t, p, Config{})
	const flows, rounds = 200, 3
	for round := range rounds {
		var cs []*mirrortest.Conversation
		for port := range uint16(flows) {
			c := mirrortest.New(netip.AddrPortFrom(client.Addr(), port+1), server, r.Packet)
			c.Client += uint32(round * 100000)
			c.Open()
			cs = append(cs, c)
		}
		for _, ask := range []string{get, chunked, post} {
			for _, c := range cs {
				c.Ask(ask)
				c.Answer("whatever")
			}
		}
		for _, c := range cs {
			c.Close()
		}
	}
	s := settled(t, r)
	if want := (Outcomes{Seen: flows * rounds * 3, Delivered: flows * rounds * 3}); s.Requests != want {
		t.Errorf("got %+v, want %+v", s.Requests, want)
	}
	for _, heard := range p.heard() {
		if heard != get+chunked+post {
			t.Fatalf("heard %q", heard)
		}
	}
}

// TestLost counts what the capture says it has lost.
func TestLost(t *testing.T) {
	p := start(t, listening)
	r := replaying(t, p, Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask(post[:len(post)-1])
	r.Lost(lostFlow(c.Flow, 3, 300))
	r.Lost(lostFlow(flow.Flow{}, 7, 0))
	s := settled(t, r)
	if s.Requests.Cut != 1 || s.LostPackets != 3 || s.LostBytes != 300 || s.KernelDrops != 7 {
		t.Errorf("stats %+v", s)
	}
}

// TestOnRequest is told what became of requests.
func TestOnRequest(t *testing.T) {
	p := start(t, answering)
	told := make(chan Request, 10)
	r := replaying(t, p, Config{OnRequest: func(q Request) { told <- q }})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask(health)
	c.Ask(post)
	c.Close()
	settled(t, r)
	want := Request{
		Time: time.Unix(1, 7e6), Client: client, Server: server, Method: "POST", Target: "/c", Host: "example.org",
		Bytes: uint64(len(post)), Status: 200, Fate: "delivered",
	}
	if diff := cmp.Diff(want, <-told, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(told) != 0 {
		t.Errorf("also told of %+v", <-told)
	}
}

func lostFlow(f flow.Flow, packets, bytes uint64) mirror.Lost {
	return mirror.Lost{Flow: f, Packets: packets, Bytes: bytes}
}

// TestBytesAddUp: whatever is missing in a capture, by packets or by flows that were given
// up, each byte that a client has sent is one of a request, or counted as skipped, missing
// or lost. (Of what is missing in a flow right before that is given up nobody knows.)
func TestBytesAddUp(t *testing.T) {
	p := start(t, answering)
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		r := replaying(t, p, Config{})
		var sent, lost uint64
		missing, flowLost := false, false
		misses := func() bool { return seed%2 == 0 && random.IntN(10) == 0 }
		capture := func(pkt mirror.Packet) {
			if seg, err := flow.ParseSegment(pkt.Data); err == nil && seg.Flow.Dst == server && flowLost {
				lost += uint64(len(seg.Payload))
			}
			if !missing && !flowLost {
				r.Packet(pkt)
			}
		}
		c := mirrortest.New(client, server, capture)
		c.Open()
		for range 30 {
			text := []string{get, head, post, chunked, unclear}[random.IntN(5)]
			for len(text) > 0 {
				n := 1 + random.IntN(len(text))
				missing = misses()
				sent += uint64(n)
				c.Ask(text[:n])
				text = text[n:]
			}
			missing = misses()
			c.Answer("whatever")
			if seed%2 == 1 && random.IntN(20) == 0 && !flowLost {
				flowLost = true
			} else if flowLost { // and it is gone on with, as the agent does
				r.Lost(lostFlow(c.Flow, 1, lost))
				flowLost, lost = false, 0
			}
		}
		missing = false
		if flowLost {
			r.Lost(lostFlow(c.Flow, 1, lost))
			flowLost = false
			c.FromServer(flow.ACK, "")
		}
		c.Close()
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := r.Stats()
		gaps := uint64(0)
		for _, n := range s.GapBytes {
			gaps += n
		}
		if got := s.RequestBytes + s.Skipped + gaps + s.LostBytes; got != sent {
			t.Errorf("seed %d: %d bytes of requests, %d skipped, %d missing and %d lost are %d; %d were sent", seed, s.RequestBytes, s.Skipped, gaps, s.LostBytes, got, sent)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
