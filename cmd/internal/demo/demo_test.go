package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/wg"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// laptop is a client of a world over its socket: real agent, link, WireGuard
// and network stacks. Its programs are conns of its own stack, which needs no
// privilege.
type laptop struct {
	t      *testing.T
	world  *World
	dir    *rundir.Dir
	client *Client
	target *kube.Target
	key    wg.PrivateKey
	agent  *kube.Agent
	net    *agenttest.Client
}

// serve starts a world that ends with the test, and its server.
func serve(t *testing.T) (*World, *rundir.Dir) {
	t.Helper()
	leaktest.Check(t)
	base, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir, err := rundir.At(filepath.Join(base, "run"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := Start(Config{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Serve(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Errorf("close world: %v", err)
		}
		if _, err := os.Stat(dir.String()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the runtime directory is still there: %v", err)
		}
	})
	return w, dir
}

// borrow borrows pod api.
func borrow(t *testing.T) *laptop {
	t.Helper()
	l := &laptop{t: t, key: wg.NewPrivateKey()}
	l.world, l.dir = serve(t)
	l.client = NewClient(l.dir, kube.Flags{})
	var err error
	if l.target, err = l.client.Resolve(t.Context(), "api", ""); err != nil {
		t.Fatal(err)
	}
	if l.agent, err = l.attach(); err != nil {
		t.Fatal(err)
	}
	at, err := agenttest.At(l.agent.Hello, func(ctx context.Context) (io.ReadWriteCloser, error) {
		return l.client.Dial(ctx, l.target, l.agent, kube.ForCalls)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.net = agenttest.Connect(t, at, l.key, l.target.PodIPs...)
	return l
}

func (l *laptop) attach() (*kube.Agent, error) {
	spec := kube.AgentSpec{ClientKey: l.key.Public().String(), IdleTTL: time.Minute, HardTTL: time.Hour}
	return l.client.Attach(l.t.Context(), l.target, spec, nil)
}

// dial connects as a program of the pod.
func (l *laptop) dial(addr netip.Addr, port uint16) (*netstack.TCPConn, error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	c, err := l.net.Stack.DialTCP(ctx, netip.AddrPortFrom(l.source(addr), 0), netip.AddrPortFrom(addr, port))
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

func (l *laptop) source(dst netip.Addr) netip.Addr {
	if dst.Is4() {
		return apiAddr
	}
	return apiAddr6
}

func (l *laptop) mustDial(addr netip.Addr, port uint16) *netstack.TCPConn {
	l.t.Helper()
	c, err := l.dial(addr, port)
	if err != nil {
		l.t.Fatalf("dial %v:%d: %v", addr, port, err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

func TestOrdersSeesThePod(t *testing.T) {
	l := borrow(t)
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(ordersAddr, 80) }}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://orders/list?n=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Trace", "7")
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got Seen
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	from, err := netip.ParseAddrPort(got.Remote)
	if err != nil || from.Addr() != apiAddr || got.App != "orders" || got.Host != "orders" || got.Path != "/list?n=1" || got.Headers.Get("X-Trace") != "7" {
		t.Errorf("orders saw %+v", got)
	}
}

func TestTCP(t *testing.T) {
	l := borrow(t)
	for _, addr := range []netip.Addr{ledgerAddr, ledgerAddr6, ledgerPod} {
		c := l.mustDial(addr, EchoPort)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Errorf("%v: echo %q, %v", addr, got, err)
		}
	}
	c := l.mustDial(ledgerAddr, WhoPort)
	text, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(text), apiAddr.String()+":") {
		t.Errorf("ledger saw %q, %v", text, err)
	}
}

// TestHalfClose sends, ends its direction, and still gets the answer.
func TestHalfClose(t *testing.T) {
	l := borrow(t)
	data := make([]byte, 4<<20)
	if _, err := io.ReadFull(pattern(int64(len(data))), data); err != nil {
		t.Fatal(err)
	}
	c := l.mustDial(ledgerAddr, SinkPort)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var got Digest
	if err := json.NewDecoder(c).Decode(&got); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if got.Bytes != int64(len(data)) || got.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("ledger heard %+v", got)
	}
	in := l.mustDial(ledgerAddr6, SourcePort)
	fmt.Fprintf(in, "%d\n", len(data))
	back, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("source said %d bytes, %v", len(back), err)
	}
}

func TestConnectFailsAsInThePod(t *testing.T) {
	l := borrow(t)
	for _, tt := range []struct {
		name string
		addr netip.Addr
		port uint16
		want error
	}{
		{"refused", ledgerAddr, 81, syscall.ECONNREFUSED},
		{"refused6", ledgerAddr6, 81, syscall.ECONNREFUSED},
		{"unreachable", gone, 80, syscall.EHOSTUNREACH},
		{"unreachable6", gone6, 80, syscall.EHOSTUNREACH},
		{"no-way-out", netip.MustParseAddr("203.0.113.77"), 80, syscall.ENETUNREACH},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := l.dial(tt.addr, tt.port); !errors.Is(err, tt.want) {
				t.Errorf("dial: %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := l.net.Stack.DialTCP(ctx, netip.AddrPortFrom(apiAddr, 0), netip.AddrPortFrom(blackHole, 80))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: %v, want silence", err)
		}
	})
}

func TestUDP(t *testing.T) {
	l := borrow(t)
	for _, addr := range []netip.Addr{ledgerAddr, ledgerAddr6} {
		// One unconnected socket, two peers.
		c, err := l.net.Stack.ListenUDP(netip.AddrPortFrom(l.source(addr), 0))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 1<<16)
		for port, want := range map[uint16]string{EchoPort: "hello", WhoPort: "hello from "} {
			dst := netip.AddrPortFrom(addr, port)
			if _, err := c.WriteToAddrPort([]byte("hello"), dst); err != nil {
				t.Fatal(err)
			}
			n, src, err := c.ReadFromAddrPort(buf)
			if err != nil || src != dst || !strings.HasPrefix(string(buf[:n]), want) {
				t.Errorf("%v: %q from %v, %v", dst, buf[:n], src, err)
			}
		}
		for dst, want := range map[netip.AddrPort]syscall.Errno{
			netip.AddrPortFrom(addr, 81): syscall.ECONNREFUSED,
			netip.AddrPortFrom(map[bool]netip.Addr{true: gone, false: gone6}[addr.Is4()], 7): syscall.EHOSTUNREACH,
		} {
			if _, err := c.WriteToAddrPort([]byte("x"), dst); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.ReadFromAddrPort(buf); !errors.Is(err, want) {
				t.Errorf("%v: %v, want %v", dst, err, want)
			}
		}
	}
}

func Test500Flows(t *testing.T) {
	l := borrow(t)
	const flows = 500
	var wg sync.WaitGroup
	failed := make(chan error, flows)
	start := make(chan struct{})
	var open sync.WaitGroup
	for i := range flows {
		open.Add(1)
		wg.Go(func() {
			c, err := l.dial(ledgerAddr, EchoPort)
			open.Done()
			if err != nil {
				failed <- err
				return
			}
			defer c.Close()
			<-start // all are open at once
			text := fmt.Sprintf("flow %d", i)
			got := make([]byte, len(text))
			if _, err = c.Write([]byte(text)); err == nil {
				_, err = io.ReadFull(c, got)
			}
			if err != nil || string(got) != text {
				failed <- fmt.Errorf("echo %q: %w", got, err)
			}
		})
	}
	open.Wait()
	close(start)
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

// TestCarrierLoss cuts the carrier under a transfer in each direction: the
// flows survive and no byte is wrong.
func TestCarrierLoss(t *testing.T) {
	l := borrow(t)
	const size = 8 << 20
	up, down := l.mustDial(ledgerAddr, SinkPort), l.mustDial(ledgerAddr, SourcePort)
	for _, c := range []*netstack.TCPConn{up, down} {
		c.SetDeadline(time.Now().Add(2 * patience))
	}
	fmt.Fprintf(down, "%d\n", size)
	quarter := make(chan struct{})
	sent := make(chan error, 1)
	want := sha256.New()
	go func() {
		in := io.TeeReader(pattern(size), want)
		_, err := io.CopyN(up, in, size/4)
		close(quarter)
		if err == nil {
			_, err = io.Copy(up, in)
		}
		sent <- errors.Join(err, up.CloseWrite())
	}()
	<-quarter
	l.world.Cut()
	l.await("the link notices", func() bool { return !l.net.Tunnel.Stats(fairqueue.Express).Up })
	l.world.Mend()
	heard := sha256.New()
	if n, err := io.Copy(heard, down); err != nil || n != size {
		t.Errorf("source: %d bytes, %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	var got Digest
	if err := json.NewDecoder(up).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if sum := hex.EncodeToString(want.Sum(nil)); got.Bytes != size || got.SHA256 != sum || hex.EncodeToString(heard.Sum(nil)) != sum {
		t.Errorf("bytes are wrong: %+v, %x", got, heard.Sum(nil))
	}
	if n := l.net.Tunnel.Stats(fairqueue.Express).Redials; n == 0 {
		t.Error("the carrier was not redialled")
	}
}

// await waits until what is true.
func (l *laptop) await(name string, what func() bool) {
	l.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !what(); <-tick.C {
		if time.Now().After(end) {
			l.t.Fatalf("%s: not in %v", name, patience)
		}
	}
}

func TestAgents(t *testing.T) {
	l := borrow(t)
	l.mustDial(ledgerAddr, EchoPort)
	again, err := l.attach()
	if err != nil || !again.Reused || again.Container != l.agent.Container {
		t.Errorf("second attach: %+v, %v", again, err)
	}
	states := func() []kube.AgentState {
		list, err := l.client.Agents(t.Context(), l.target)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := states(); len(list) != 1 || list[0].State != kube.StateRunning || list[0].Container != l.agent.Container {
		t.Errorf("agents %+v", list)
	}
	l.world.Kill()
	l.await("the agent ends", func() bool { return states()[0].State == kube.StateTerminated })
	if s := states()[0]; s.ExitCode != 137 {
		t.Errorf("ended agent %+v", s)
	}
	if _, err := l.client.Dial(t.Context(), l.target, l.agent, kube.ForCalls); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial an ended agent: %v", err)
	}
	fresh, err := l.attach()
	if err != nil || fresh.Reused || fresh.Container == l.agent.Container {
		t.Errorf("attach after the end: %+v, %v", fresh, err)
	}
}

func TestResolve(t *testing.T) {
	_, dir := serve(t)
	for _, tt := range []struct{ namespace, ref, container, pod, want string }{
		{"", "api", "", "api-", ""},
		{"shop", "deploy/api", "app", "api-", ""},
		{"", "svc/orders", "", "orders-", ""},
		{"", "pod/api-7d9f6c5b4-x2v8k", "", "api-", ""},
		{"", "nosuch", "", "", "find nosuch in namespace shop: there is no such pod, workload or service"},
		{"", "pod/api", "", "", "find pod/api in namespace shop: there is no such pod, workload or service"},
		{"", "svc/api", "", "", "find svc/api in namespace shop: there is no such pod, workload or service"},
		{"", "sock/api", "", "", `find sock/api: "sock" is no type that has pods here`},
		{"other", "api", "", "", "find api: there is no namespace other"},
		{"", "api", "sidecar", "", "find container sidecar in pod shop/api-7d9f6c5b4-x2v8k: the pod has no such container"},
	} {
		got, err := NewClient(dir, kube.Flags{Namespace: tt.namespace}).Resolve(t.Context(), tt.ref, tt.container)
		switch {
		case tt.want == "" && (err != nil || !strings.HasPrefix(got.Pod, tt.pod) || got.Context != Context):
			t.Errorf("%s: %+v, %v", tt.ref, got, err)
		case tt.want != "" && (err == nil || err.Error() != tt.want):
			t.Errorf("%s: %v, want %s", tt.ref, err, tt.want)
		}
		var k *kube.Error
		if tt.want != "" && (!errors.As(err, &k) || k.Hint == "") {
			t.Errorf("%s: no hint", tt.ref)
		}
	}
}

func TestOneWorldPerDirectory(t *testing.T) {
	w, dir := serve(t)
	if !Running(dir) {
		t.Error("the world does not seem to run")
	}
	if _, err := w.Serve(dir); err == nil {
		t.Error("a second server in the same directory")
	}
}

func TestNoWorld(t *testing.T) {
	dir, err := rundir.At(filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Skip(err) // the test's directory has too long a name
	}
	c := NewClient(dir, kube.Flags{})
	_, err = c.Resolve(t.Context(), "api", "")
	var k *kube.Error
	if !errors.As(err, &k) || k.Hint != "borrownet demo --keep" {
		t.Errorf("resolve: %v", err)
	}
	if list, err := c.Agents(t.Context(), &kube.Target{}); err != nil || list != nil {
		t.Errorf("agents of an ended world: %v, %v", list, err)
	}
}
