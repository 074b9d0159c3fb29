package switchboard

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/leaktest"
)

var (
	dst     = netip.MustParseAddrPort("192.0.2.1:80")
	refused = netip.MustParseAddrPort("192.0.2.2:80")
	local   = netip.MustParseAddrPort("127.0.0.1:53")
	silent  = netip.MustParseAddrPort("192.0.2.3:80")
	six     = netip.MustParseAddrPort("[2001:db8::1]:443")
)

// board is a handler: TCP says the destination, UDP echoes.
type board struct {
	cancelled chan struct{} // a dial of silent ended
	dropped   chan struct{} // a carry without a far end
	attended  chan struct{} // Attend began, and ended
}

func (*board) Publish(_ context.Context, at netip.AddrPort, v6only bool) error {
	switch {
	case at == dst && !v6only, at == six && v6only:
		return nil
	}
	return &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
}

func (b *board) Attend(ctx context.Context) {
	b.attended <- struct{}{}
	<-ctx.Done()
	b.attended <- struct{}{}
}

func (b *board) OpenTCP(ctx context.Context, dst netip.AddrPort) (func(context.Context, *net.TCPConn), error) {
	switch dst {
	case refused:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case local:
		return nil, ErrLocal
	case silent:
		<-ctx.Done()
		close(b.cancelled)
		return nil, ctx.Err()
	}
	return func(_ context.Context, c *net.TCPConn) {
		if c == nil {
			close(b.dropped)
			return
		}
		io.WriteString(c, dst.String())
		c.Close()
	}, nil
}

func (*board) OpenUDP(context.Context, netip.AddrPort) (func(context.Context, *net.UDPConn), error) {
	return func(ctx context.Context, c *net.UDPConn) {
		defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
		buf := make([]byte, 100)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			c.Write(buf[:n])
		}
	}, nil
}

// serve runs a server until the test ends, and checks that it leaves nothing.
func serve(t *testing.T) (*Client, *board) {
	t.Helper()
	leaktest.Check(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	b := &board{cancelled: make(chan struct{}), dropped: make(chan struct{}), attended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&Server{Listener: ln, Handler: b}).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c, b
}

func TestTCP(t *testing.T) {
	c, _ := serve(t)
	for _, to := range []netip.AddrPort{dst, six} {
		f, err := c.Open(t.Context(), flow.TCP, to)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		near, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		attach(t, f, far)
		f.Close() // the flow goes on
		got, err := io.ReadAll(near)
		if err != nil || string(got) != to.String() {
			t.Errorf("got %q, %v, want %s", got, err, to)
		}
	}
}

// attach hands c over and closes it here.
func attach(t *testing.T, f *Flow, c net.Conn) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = f.Attach(int(fd)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	c.Close()
}

func TestVerdicts(t *testing.T) {
	c, _ := serve(t)
	if _, err := c.Open(t.Context(), flow.TCP, refused); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("refused: %v", err)
	}
	if _, err := c.Open(t.Context(), flow.TCP, local); err != ErrLocal {
		t.Errorf("local: %v", err)
	}
	if _, err := c.Open(t.Context(), 50, dst); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("unknown protocol: %v", err)
	}
	gone := &Client{path: "/no/such/socket"}
	if _, err := gone.Open(t.Context(), flow.TCP, dst); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("no daemon: %v", err)
	}
}

// TestClientGone cancels a dial, and drops a flow whose far end never comes.
func TestClientGone(t *testing.T) {
	c, b := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Open(ctx, flow.TCP, silent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open: %v", err)
	}
	<-b.cancelled
	f, err := c.Open(t.Context(), flow.TCP, dst)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	<-b.dropped
}

// TestUDPEndsWithTheClient checks that the far end is closed then.
func TestUDPEndsWithTheClient(t *testing.T) {
	c, _ := serve(t)
	f, err := c.Open(t.Context(), flow.UDP, dst)
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := net.DialUDP("udp", nil, near.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	at := far.LocalAddr()
	attach(t, f, far)
	near.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 100)
	if _, err := near.WriteTo([]byte("ping"), at); err != nil {
		t.Fatal(err)
	}
	if n, _, err := near.ReadFrom(buf); err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	f.Close()
	// The port is free once the server has closed it.
	for end := time.Now().Add(30 * time.Second); ; {
		c, err := net.ListenPacket("udp", at.String())
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the far end stays: %v", err)
		}
		runtime.Gosched()
	}
}

// TestWrongFarEnd hands over what is not of the protocol.
func TestWrongFarEnd(t *testing.T) {
	c, b := serve(t)
	f, err := c.Open(t.Context(), flow.TCP, dst)
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	attach(t, f, u.(*net.UDPConn))
	<-b.dropped
	f.Close()
}

func TestPublish(t *testing.T) {
	c, _ := serve(t)
	for at, v6only := range map[netip.AddrPort]bool{dst: false, six: true} {
		if err := c.Publish(t.Context(), at, v6only); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		if err := c.Publish(t.Context(), at, !v6only); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: %v, want EADDRINUSE", at, err)
		}
	}
}

func TestAttend(t *testing.T) {
	c, b := serve(t)
	a, err := c.Attend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-b.attended
	a.Close()
	<-b.attended
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request{proto: flow.TCP, dst: dst}.marshal())
	f.Add(request{proto: flow.UDP, dst: six}.marshal())
	f.Add(request{want: wantPortOnlyV6, proto: flow.TCP, dst: six}.marshal())
	f.Add(request{want: wantAttention, proto: flow.TCP}.marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		again, err := parseRequest(r.marshal())
		if err != nil || again.want != r.want || again.proto != r.proto || again.dst.Port() != r.dst.Port() || again.dst.Addr().Unmap() != r.dst.Addr().Unmap() {
			t.Errorf("%v became %v, %v", r, again, err)
		}
	})
}
