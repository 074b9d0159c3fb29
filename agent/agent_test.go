package agent_test

import (
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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/wg"
)

var (
	podIP   = netip.MustParseAddr("203.0.113.7")
	podIP6  = netip.MustParseAddr("2001:db8::7")
	server  = netip.MustParseAddr("198.51.100.10")
	server6 = netip.MustParseAddr("2001:db8:1::10")
	silent  = netip.MustParseAddr("192.0.2.1")
	lost    = netip.MustParseAddr("192.0.2.2")
)

func at(ip netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(ip, port) }

func echoServer(c net.Conn) {
	defer c.Close()
	io.Copy(c, c)
}

// afterEOF answers only when the program has said everything.
func afterEOF(c net.Conn) {
	defer c.Close()
	h := sha256.New()
	n, _ := io.Copy(h, c)
	fmt.Fprintf(c, "%d %x", n, h.Sum(nil))
}

func resetter(c net.Conn) {
	c.Read(make([]byte, 1))
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func newWorld() *agenttest.World {
	upper := func(p []byte) []byte { return bytes.ToUpper(p) }
	return &agenttest.World{
		Pod:        []netip.Addr{podIP, podIP6},
		ResolvConf: "nameserver 198.51.100.53\nsearch shop.svc.cluster.local\n",
		TCP: map[netip.AddrPort]func(net.Conn){
			at(server, 7):  echoServer,
			at(server6, 7): echoServer,
			at(server, 9):  afterEOF,
			at(server, 11): resetter,
		},
		UDP: map[netip.AddrPort]func([]byte) []byte{
			at(server, 7): upper,
			at(netip.MustParseAddr("198.51.100.11"), 7): upper,
			at(server6, 7): upper,
		},
		Echo:        map[netip.Addr]bool{server: true, server6: true},
		Silent:      map[netip.Addr]bool{silent: true},
		Unreachable: map[netip.Addr]syscall.Errno{lost: syscall.EHOSTUNREACH},
	}
}

// start runs an agent in newWorld and a client of it.
func start(t *testing.T, change func(*agent.Config)) (*agenttest.Agent, *agenttest.Client, wg.PrivateKey) {
	t.Helper()
	key := wg.NewPrivateKey()
	cfg := agent.Config{ClientKey: key.Public(), Network: newWorld(), Version: "test", Env: []string{"COLOUR=green"}}
	if change != nil {
		change(&cfg)
	}
	a := agenttest.Start(t, cfg)
	return a, agenttest.Connect(t, a, key, podIP, podIP6), key
}

// patience is how long what takes milliseconds may take on a machine that is busy.
const patience = time.Minute

func dial(t *testing.T, c *agenttest.Client, src netip.Addr, dst netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := dialErr(c, src, dst, patience)
	if err != nil {
		t.Fatalf("dial %s: %v", dst, err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func dialErr(c *agenttest.Client, src netip.Addr, dst netip.AddrPort, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return c.Stack.DialTCP(ctx, at(src, 0), dst)
}

func TestTCPEcho(t *testing.T) {
	_, c, _ := start(t, nil)
	for _, tt := range []struct {
		name     string
		src, dst netip.Addr
	}{{"ipv4", podIP, server}, {"ipv6", podIP6, server6}} {
		t.Run(tt.name, func(t *testing.T) {
			conn := dial(t, c, tt.src, at(tt.dst, 7))
			fmt.Fprint(conn, "hello")
			got := make([]byte, 5)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
				t.Fatalf("read %q, %v", got, err)
			}
		})
	}
}

func TestTCPHalfCloseAndContent(t *testing.T) {
	_, c, _ := start(t, nil)
	conn := dial(t, c, podIP, at(server, 9))
	h := sha256.New()
	const size = 32 << 20
	src := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
	if _, err := io.Copy(io.MultiWriter(conn, h), src); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if want := fmt.Sprintf("%d %x", size, h.Sum(nil)); err != nil || string(got) != want {
		t.Fatalf("server saw %q, %v; want %q", got, err, want)
	}
}

func TestTCPResetPassesBack(t *testing.T) {
	_, c, _ := start(t, nil)
	conn := dial(t, c, podIP, at(server, 11))
	conn.Write([]byte("x"))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read error = %v, want ECONNRESET", err)
	}
}

func TestTCPErrnos(t *testing.T) {
	_, c, _ := start(t, nil)
	tests := []struct {
		name string
		dst  netip.AddrPort
		want error
	}{
		{"refused", at(server, 99), syscall.ECONNREFUSED},
		{"unreachable", at(lost, 80), syscall.EHOSTUNREACH},
		{"silent", at(silent, 80), context.DeadlineExceeded},
		{"loopback_denied", at(netip.MustParseAddr("169.254.169.254"), 80), syscall.EHOSTUNREACH},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := patience
			if tt.want == context.DeadlineExceeded {
				limit = 2 * time.Second
			}
			conn, err := dialErr(c, podIP, tt.dst, limit)
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("dial error = %v, want %v", err, tt.want)
			}
		})
	}
}

func Test500ConcurrentConnections(t *testing.T) {
	_, c, _ := start(t, nil)
	var wg sync.WaitGroup
	errs := make(chan error, 500)
	for i := range 500 {
		wg.Go(func() {
			conn, err := dialErr(c, podIP, at(server, 7), patience)
			if err != nil {
				errs <- err
				return
			}
			defer conn.Close()
			want := fmt.Sprintf("flow %03d", i)
			fmt.Fprint(conn, want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
				errs <- fmt.Errorf("flow %d: read %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func TestFlowLimitRefuses(t *testing.T) {
	_, c, _ := start(t, func(cfg *agent.Config) { cfg.MaxFlows = 2 })
	dial(t, c, podIP, at(server, 7))
	dial(t, c, podIP, at(server, 7))
	if _, err := dialErr(c, podIP, at(server, 7), patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("third flow: %v, want ECONNREFUSED", err)
	}
	// A SYN that is sent again, after a second without an answer, is refused again.
	if got := stats(t, c).Dropped["too many TCP flows"]; got == 0 {
		t.Error("not counted")
	}
}

func TestUDP(t *testing.T) {
	_, c, _ := start(t, nil)
	for _, dst := range []netip.AddrPort{at(server, 7), at(netip.MustParseAddr("198.51.100.11"), 7), at(server6, 7)} {
		t.Run(dst.Addr().String(), func(t *testing.T) {
			src := podIP
			if dst.Addr().Is6() {
				src = podIP6
			}
			conn, err := c.Stack.DialUDP(at(src, 5000), dst)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprint(conn, "ping")
			got := make([]byte, 16)
			n, err := conn.Read(got)
			if err != nil || string(got[:n]) != "PING" {
				t.Fatalf("read %q, %v", got[:n], err)
			}
		})
	}
	// A datagram is counted once it is sent: its answer may be here before.
	waitUntil(t, "one socket per source, 3 sent, 3 received", func() bool {
		got := stats(t, c)
		return got.UDPSockets == 2 && got.UDPSent == 3 && got.UDPReceived == 3
	})
}

func TestUDPRefused(t *testing.T) {
	_, c, _ := start(t, nil)
	conn, err := c.Stack.DialUDP(at(podIP, 0), at(server, 99))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "ping")
	if _, err := conn.Read(make([]byte, 16)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("read error = %v, want ECONNREFUSED", err)
	}
}

func stats(t *testing.T, c *agenttest.Client) wire.Stats {
	t.Helper()
	var s wire.Stats
	get(t, c, wire.PathStats, &s)
	return s
}

func get(t *testing.T, c *agenttest.Client, path string, v any) {
	t.Helper()
	resp, err := c.HTTP.Get("http://agent" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", path, resp.Status)
	}
	if err := wire.Decode(resp.Body, v); err != nil {
		t.Fatal(err)
	}
}

func TestInfo(t *testing.T) {
	_, c, _ := start(t, nil)
	var info wire.Info
	get(t, c, wire.PathInfo, &info)
	if info.Protocol != wire.Protocol || len(info.Addrs) != 2 || !strings.Contains(info.Resolv, "198.51.100.53") || info.Ping != "" {
		t.Errorf("info = %+v", info)
	}
	if len(info.Env) != 1 || info.Env[0] != "COLOUR=green" {
		t.Errorf("env = %q", info.Env)
	}
}

func TestControlIsClosedToPrograms(t *testing.T) {
	_, c, _ := start(t, nil)
	stats(t, c) // the tunnel is there
	if _, err := dialErr(c, podIP, at(wire.AgentAddr, wire.ControlPort), 2*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("dial from a program = %v, want silence", err)
	}
	if got := stats(t, c).Dropped["control address from a program"]; got == 0 {
		t.Error("not counted")
	}
}

func TestForeignSourceIsDropped(t *testing.T) {
	key := wg.NewPrivateKey()
	a := agenttest.Start(t, agent.Config{ClientKey: key.Public(), Network: newWorld()})
	forged := netip.MustParseAddr("203.0.113.99")
	c := agenttest.Connect(t, a, key, podIP, forged)
	stats(t, c) // the tunnel is there
	if _, err := dialErr(c, forged, at(server, 7), 2*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("dial = %v, want silence", err)
	}
	if got := stats(t, c).Dropped["foreign source address"]; got == 0 {
		t.Error("not counted")
	}
}

func TestStrangerGetsNothing(t *testing.T) {
	a, _, _ := start(t, nil)
	for _, first := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("\x00", 4096), "x"} {
		conn, err := a.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, first)
		conn.(net.Conn).SetDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(conn)
		conn.Close()
		if len(got) != 0 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stranger got %q, %v; want 0 bytes and the end", got, err)
		}
	}
}

func TestNewSessionResetsOldFlows(t *testing.T) {
	a, c, key := start(t, nil)
	dial(t, c, podIP, at(server, 7))
	c.Tunnel.Close() // else it dials again, and the two replace each other
	next := agenttest.Connect(t, a, key, podIP)
	dial(t, next, podIP, at(server, 7))
	// The old session ends while the new one is there already.
	waitUntil(t, "only the new session's flow is open", func() bool { return stats(t, next).TCPFlows == 1 })
}

// crowdedListener has no descriptor left for the first connections.
type crowdedListener struct {
	net.Listener
	left atomic.Int32
}

func (l *crowdedListener) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestNoRoomForACarrierIsNoEnd(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	crowded := &crowdedListener{Listener: ln}
	crowded.left.Store(3)
	a, err := agent.New(agent.Config{ClientKey: wg.NewPrivateKey().Public(), Network: newWorld(), Listener: crowded})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	// At -1 it waits for the next carrier.
	for limit := time.Now().Add(patience); crowded.left.Load() != -1; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("the agent has ended: %v", err)
		default:
		}
		if time.Now().After(limit) {
			t.Fatal("the agent does not accept again")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestEndings(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		key := wg.NewPrivateKey()
		a := agenttest.Start(t, agent.Config{ClientKey: key.Public(), Network: newWorld(), IdleTTL: 50 * time.Millisecond})
		if err := a.Wait(patience); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("hard", func(t *testing.T) {
		a, c, _ := start(t, func(cfg *agent.Config) { cfg.HardTTL = time.Second })
		if _, err := dialErr(c, podIP, at(server, 7), 2*time.Second); err != nil {
			t.Logf("its time was over before it had a flow: %v", err)
		}
		if err := a.Wait(patience); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("stop", func(t *testing.T) {
		a, c, _ := start(t, nil)
		resp, err := c.HTTP.Post("http://agent"+wire.PathStop, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := a.Wait(patience); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLocalhost: the client itself reaches the ports of the pod's loopback that the
// agent was started for, and no others; programs reach none.
func TestLocalhost(t *testing.T) {
	_, c, _ := start(t, func(cfg *agent.Config) {
		cfg.Policy.Localhost = []uint16{9901}
		cfg.Network.(*agenttest.World).TCP[at(netip.MustParseAddr("127.0.0.1"), 9901)] = func(conn net.Conn) { conn.Close() }
	})
	for _, tt := range []struct {
		name string
		src  netip.Addr
		port uint16
		ok   bool
	}{
		{"allowed", wire.ClientAddr, 9901, true},
		{"not_allowed", wire.ClientAddr, 9902, false},
		{"program", podIP, 9901, false},
	} {
		limit := patience
		if !tt.ok { // a program hears nothing
			limit = time.Second
		}
		conn, err := dialErr(c, tt.src, at(wire.LoopbackAddr, tt.port), limit)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestMetadata: programs reach the metadata services that the agent was started for,
// and no others.
func TestMetadata(t *testing.T) {
	allowed, other := netip.MustParseAddr("169.254.170.23"), netip.MustParseAddr("169.254.169.254")
	_, c, _ := start(t, func(cfg *agent.Config) {
		cfg.Policy.Metadata = []netip.Addr{allowed}
		for _, a := range []netip.Addr{allowed, other} {
			cfg.Network.(*agenttest.World).TCP[at(a, 80)] = func(conn net.Conn) { conn.Close() }
		}
	})
	conn, err := dialErr(c, podIP, at(allowed, 80), patience)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if conn, err := dialErr(c, podIP, at(other, 80), patience); !errors.Is(err, syscall.EHOSTUNREACH) {
		if err == nil {
			conn.Close()
		}
		t.Errorf("%s: %v, want no route to host", other, err)
	}
}

// meshed is a world in which everything goes through a proxy.
type meshed struct{ *agenttest.World }

func (meshed) Probe(_ context.Context, dst netip.AddrPort) wire.Path {
	return wire.Path{To: dst, Connected: true, Via: netip.MustParseAddrPort("127.0.0.1:15001")}
}

func (meshed) Identity(context.Context) wire.Identity {
	return wire.Identity{ID: "spiffe://cluster.local/ns/shop/sa/api"}
}

// TestMeshIsAnswered: the client is told how connections leave the pod, and as
// whom if it asks; an agent that cannot know says so.
func TestMeshIsAnswered(t *testing.T) {
	get := func(c *agenttest.Client, query string) (int, wire.Mesh) {
		t.Helper()
		resp, err := c.HTTP.Get("http://agent" + wire.PathMesh + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var m wire.Mesh
		if resp.StatusCode == http.StatusOK {
			if err := wire.Decode(resp.Body, &m); err != nil {
				t.Fatal(err)
			}
		}
		return resp.StatusCode, m
	}
	_, c, _ := start(t, func(cfg *agent.Config) { cfg.Network = meshed{newWorld()} })
	for query, id := range map[string]string{"": "", "?" + wire.MeshEnvoy: "spiffe://cluster.local/ns/shop/sa/api"} {
		code, m := get(c, query)
		if code != http.StatusOK || m.Path.Via.Port() != 15001 || m.Path.To != netip.MustParseAddrPort("198.51.100.53:53") || m.Identity.ID != id || m.UID != os.Getuid() {
			t.Errorf("mesh%s: %d, %+v; want identity %q", query, code, m, id)
		}
	}
	_, plain, _ := start(t, nil)
	if code, _ := get(plain, ""); code != http.StatusNotImplemented {
		t.Errorf("mesh of a world without any: %d, want %d", code, http.StatusNotImplemented)
	}
}

// waitUntil waits for ok.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
