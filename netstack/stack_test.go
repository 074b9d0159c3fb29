package netstack_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// The client and the server of most tests.
var (
	client4 = netip.MustParseAddr("192.0.2.1")
	client6 = netip.MustParseAddr("2001:db8::1")
	server4 = netip.MustParseAddr("198.51.100.1")
	server6 = netip.MustParseAddr("2001:db8:1::1")
	// Addresses that the transparent server has not.
	foreign4 = netip.MustParseAddr("203.0.113.7")
	foreign6 = netip.MustParseAddr("2001:db8:2::7")
)

var (
	clientConfig = netstack.Config{Name: "client", Addrs: []netip.Addr{client4, client6}}
	serverConfig = netstack.Config{Name: "server", Addrs: []netip.Addr{server4, server6}, Transparent: true}
)

// testContext is done before the test binary's own timeout.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// await waits until ok, which is about what, holds.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx := testContext(t)
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("no %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func port(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }

// connect returns both ends of a conn from a to b, which listens on addr.
func connect(t testing.TB, a, b *netstack.Stack, addr netip.AddrPort) (local, remote *netstack.TCPConn) {
	t.Helper()
	l, err := b.ListenTCP(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	})
	local, err = a.DialTCP(testContext(t), netip.AddrPort{}, addr)
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	c := <-accepted
	if c == nil {
		t.FailNow()
	}
	t.Cleanup(func() { local.Close(); c.Close() })
	return local, c.(*netstack.TCPConn)
}

func TestTCPConnIsNetConn(t *testing.T) {
	for name, addr := range map[string]netip.AddrPort{"ipv4": port(server4, 80), "ipv6": port(server6, 80)} {
		t.Run(name, func(t *testing.T) {
			leaktest.Check(t)
			a, b := netstacktest.Pair(t, clientConfig, serverConfig)
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				c1, c2 := connect(t, a, b, addr)
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

func TestTCPAddrs(t *testing.T) {
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	c1, c2 := connect(t, a, b, port(server4, 80))
	if got, want := c1.RemoteAddr().String(), "198.51.100.1:80"; got != want {
		t.Errorf("remote address of dialer = %v, want %v", got, want)
	}
	if got, want := c1.LocalAddr().String(), c2.RemoteAddr().String(); got != want {
		t.Errorf("local address of dialer = %v, remote of acceptor %v", got, want)
	}
	if got, want := c2.LocalAddr().String(), "198.51.100.1:80"; got != want {
		t.Errorf("local address of acceptor = %v, want %v", got, want)
	}
}

func TestTCPHalfClose(t *testing.T) {
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	c1, c2 := connect(t, a, b, port(server4, 80))
	if _, err := io.WriteString(c1, "question"); err != nil {
		t.Fatal(err)
	}
	if err := c1.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c2); err != nil || string(got) != "question" {
		t.Fatalf("acceptor read %q, %v", got, err)
	}
	if _, err := c1.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after CloseWrite = %v, want EPIPE", err)
	}
	if _, err := io.WriteString(c2, "answer"); err != nil {
		t.Fatal(err)
	}
	if err := c2.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c1); err != nil || string(got) != "answer" {
		t.Fatalf("dialer read %q, %v", got, err)
	}
}

func TestTCPReset(t *testing.T) {
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	c1, c2 := connect(t, a, b, port(server4, 80))
	if err := c1.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := c2.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read after reset = %v, want ECONNRESET", err)
	}
	if _, err := c2.Write(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after reset = %v, want ECONNRESET or EPIPE", err)
	}
	if _, err := c1.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after own reset = %v, want net.ErrClosed", err)
	}
	if err := c1.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close after Reset = %v, want net.ErrClosed", err)
	}
}

func TestDialRefusals(t *testing.T) {
	tests := []struct {
		name   string
		reject error
		dst    netip.AddrPort
		want   error
	}{
		{"refused4", syscall.ECONNREFUSED, port(foreign4, 80), syscall.ECONNREFUSED},
		{"refused6", syscall.ECONNREFUSED, port(foreign6, 80), syscall.ECONNREFUSED},
		{"host4", syscall.EHOSTUNREACH, port(foreign4, 80), syscall.EHOSTUNREACH},
		{"host6", syscall.EHOSTUNREACH, port(foreign6, 80), syscall.EHOSTUNREACH},
		{"net4", syscall.ENETUNREACH, port(foreign4, 80), syscall.ENETUNREACH},
		{"net6", syscall.ENETUNREACH, port(foreign6, 80), syscall.ENETUNREACH},
		{"prohibited4", syscall.EACCES, port(foreign4, 80), syscall.EHOSTUNREACH},
		{"prohibited6", syscall.EPERM, port(foreign6, 80), syscall.EACCES},
		{"unknown", errors.New("unforeseen"), port(foreign4, 80), syscall.ECONNREFUSED},
		{"wrapped", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, port(foreign4, 80), syscall.EHOSTUNREACH},
		{"silence", context.DeadlineExceeded, port(foreign4, 80), context.DeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			a, b := netstacktest.Pair(t, clientConfig, serverConfig)
			b.ForwardTCP(10, func(r *netstack.TCPRequest) {
				if r.Flow().Dst != tt.dst {
					t.Errorf("request for %v, want %v", r.Flow().Dst, tt.dst)
				}
				r.Reject(tt.reject)
				r.Reject(tt.reject)
				if _, err := r.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept after Reject = %v, want net.ErrClosed", err)
				}
			})
			ctx := testContext(t)
			if tt.want == context.DeadlineExceeded {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
			}
			began := time.Now()
			c, err := a.DialTCP(ctx, netip.AddrPort{}, tt.dst)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("DialTCP = %v, want %v", err, tt.want)
			}
			var op *net.OpError
			if !errors.As(err, &op) {
				t.Errorf("DialTCP = %T, want *net.OpError", err)
			}
			if tt.want == context.DeadlineExceeded && !op.Timeout() {
				t.Errorf("%v is no timeout", err)
			}
			took := time.Since(began)
			await(t, "rejection", func() bool { return b.Stats().TCPRejected > 0 })
			if st := b.Stats(); st.TCPRejected > atMost(took) {
				t.Errorf("after %v stats = %+v", took, st)
			}
		})
	}
}

// atMost is how many SYNs a dial sends that takes so long: the second one after a second, which passes
// only on a machine that stands still.
func atMost(took time.Duration) uint64 { return 1 + uint64(took/time.Second) }

func TestDialErrors(t *testing.T) {
	a, b := netstacktest.Pair(t, netstack.Config{Addrs: []netip.Addr{client4}}, serverConfig)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name     string
		ctx      context.Context
		src, dst netip.AddrPort
		want     error
	}{
		{"no-listener", t.Context(), netip.AddrPort{}, port(server4, 9), syscall.ECONNREFUSED},
		{"no-ipv6", t.Context(), netip.AddrPort{}, port(server6, 9), syscall.ENETUNREACH},
		{"no-address", t.Context(), netip.AddrPort{}, netip.AddrPort{}, syscall.EADDRNOTAVAIL},
		{"not-my-source", t.Context(), port(foreign4, 0), port(server4, 9), syscall.EADDRNOTAVAIL},
		{"cancelled", cancelled, netip.AddrPort{}, port(server4, 9), context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := a.DialTCP(tt.ctx, tt.src, tt.dst); !errors.Is(err, tt.want) {
				t.Errorf("DialTCP = %v, want %v", err, tt.want)
			}
		})
	}
	// A cancel while nobody answers.
	b.ForwardTCP(1, func(r *netstack.TCPRequest) { r.Reject(syscall.ETIMEDOUT) })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := a.DialTCP(ctx, netip.AddrPort{}, port(server4, 9)); !errors.Is(err, context.Canceled) {
		t.Errorf("DialTCP = %v, want context.Canceled", err)
	}
}

func TestDialFromAnySource(t *testing.T) {
	a, b := netstacktest.Pair(t, serverConfig, clientConfig)
	l, err := b.ListenTCP(port(client4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	src := port(foreign4, 4711)
	c, err := a.DialTCP(testContext(t), src, port(client4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if got := peer.RemoteAddr().String(); got != src.String() {
		t.Errorf("conn comes from %v, want %v", got, src)
	}
}

func TestLoopbackNeedsOption(t *testing.T) {
	lo := port(netip.MustParseAddr("127.0.0.1"), 80)
	lo6 := port(netip.MustParseAddr("::1"), 80)
	for _, loopback := range []bool{false, true} {
		for name, addr := range map[string]netip.AddrPort{"ipv4": lo, "ipv6": lo6} {
			t.Run(name+"-"+map[bool]string{false: "off", true: "on"}[loopback], func(t *testing.T) {
				leaktest.Check(t)
				near, far := serverConfig, serverConfig
				near.Loopback, far.Loopback = loopback, loopback
				a, b := netstacktest.Pair(t, near, far)
				accepted := make(chan struct{})
				b.ForwardTCP(10, func(r *netstack.TCPRequest) {
					defer close(accepted)
					c, err := r.Accept()
					if err != nil {
						t.Error(err)
						return
					}
					c.Close()
				})
				ctx := testContext(t)
				if !loopback {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
					defer cancel()
				}
				// From loopback to loopback, as into a session's namespace.
				c, err := a.DialTCP(ctx, port(addr.Addr(), 0), addr)
				if loopback != (err == nil) {
					t.Fatalf("DialTCP = %v", err)
				}
				if err == nil {
					<-accepted
					c.Close()
				}
			})
		}
	}
}

func TestListen(t *testing.T) {
	leaktest.Check(t)
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	l, err := b.ListenTCP(netip.AddrPortFrom(netip.Addr{}, 80))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ListenTCP(netip.AddrPortFrom(netip.Addr{}, 80)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second ListenTCP = %v, want EADDRINUSE", err)
	}
	if _, err := a.ListenTCP(port(foreign4, 80)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("ListenTCP on a foreign address = %v, want EADDRNOTAVAIL", err)
	}
	for _, dst := range []netip.Addr{server4, server6} {
		c, err := a.DialTCP(testContext(t), netip.AddrPort{}, port(dst, 80))
		if err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := peer.RemoteAddr().String(); got != c.LocalAddr().String() {
			t.Errorf("conn from %v, want %v", got, c.LocalAddr())
		}
		c.Close()
		peer.Close()
	}
	failed := make(chan error)
	go func() {
		_, err := l.Accept()
		failed <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v, want net.ErrClosed", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close = %v, want net.ErrClosed", err)
	}
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name string
		cfg  netstack.Config
		want string
	}{
		{"mtu-small", netstack.Config{Name: "x", MTU: 1000}, "make stack x: MTU 1000 is not"},
		{"mtu-big", netstack.Config{MTU: 70000}, "MTU 70000 is not"},
		{"unspecified", netstack.Config{Addrs: []netip.Addr{netip.IPv4Unspecified()}}, "no address of a host"},
		{"multicast", netstack.Config{Addrs: []netip.Addr{netip.MustParseAddr("224.0.0.1")}}, "no address of a host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := netstack.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want %q", err, tt.want)
			}
		})
	}
}
