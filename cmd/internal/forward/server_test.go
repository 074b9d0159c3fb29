package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/relay"
)

var (
	web     = netip.MustParseAddrPort("192.0.2.1:80")
	nothing = netip.MustParseAddrPort("192.0.2.2:80")
)

// cluster has a web server at web, which is a real one on this machine's loopback.
type cluster struct{ server string }

func (c *cluster) OpenTCP(ctx context.Context, dst netip.AddrPort) (func(context.Context, *net.TCPConn), error) {
	switch {
	case dst.Addr().IsLoopback():
		return nil, switchboard.ErrLocal
	case dst != web:
		return nil, syscall.ECONNREFUSED
	}
	var d net.Dialer
	far, err := d.DialContext(ctx, "tcp", c.server)
	if err != nil {
		return nil, syscall.EHOSTUNREACH
	}
	return func(ctx context.Context, near *net.TCPConn) {
		if near == nil {
			far.Close()
			return
		}
		relay.Copy(ctx, near, far.(*net.TCPConn), relay.Options{})
	}, nil
}

func (*cluster) OpenUDP(context.Context, netip.AddrPort) (func(context.Context, *net.UDPConn), error) {
	return nil, syscall.ENETUNREACH
}
func (*cluster) Publish(context.Context, netip.AddrPort, bool) error { return nil }
func (*cluster) Attend(ctx context.Context)                          { <-ctx.Done() }

// lab is a cluster, and a server of forwards into it.
type lab struct {
	t      *testing.T
	server *Server

	mu     sync.Mutex
	failed []Failure
	note   chan struct{} // buffered
}

// newLab serves cfg, whose Dialer and Failed it sets. change may change the server
// before.
func newLab(t *testing.T, cfg Config, change ...func(*Server)) *lab {
	t.Helper()
	leaktest.Check(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.Header.Get("X-Forwarded-For")+r.Header.Get("Via")+r.Header.Get("Proxy-Connection"))
	})
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln) // ends with Close
	t.Cleanup(func() { srv.Close() })

	dir, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	board, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, note: make(chan struct{}, 16)}
	cfg.Failed = func(f Failure) {
		l.mu.Lock()
		l.failed = append(l.failed, f)
		l.mu.Unlock()
		l.note <- struct{}{}
	}
	cfg.Dialer = &Dialer{Way: func(_ context.Context, host string) (session.Way, error) {
		w := session.Way{Socket: socket}
		switch host {
		case "web":
			w.Addrs = []netip.Addr{web.Addr(), netip.MustParseAddr("2001:db8::1")}
		case "closed":
			w.Addrs = []netip.Addr{nothing.Addr()}
		default:
			a, err := netip.ParseAddr(host)
			if err != nil {
				return w, &fault.Error{Code: fault.Target, Op: "find", Object: host, Reason: "no such host"}
			}
			w.Addrs = []netip.Addr{a}
		}
		return w, nil
	}}
	if l.server, err = Listen(cfg); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(l.server)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := (&switchboard.Server{Listener: board, Handler: &cluster{server: ln.Addr().String()}}).Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := l.server.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return l
}

// at is where the door is.
func (l *lab) at(i int) string { return l.server.Doors()[i].At.String() }

// failure waits for one and returns it.
func (l *lab) failure() Failure {
	l.t.Helper()
	select {
	case <-l.note:
	case <-time.After(time.Minute):
		l.t.Fatal("no failure is reported")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed[len(l.failed)-1]
}

func any0() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:0") }

// client makes requests through a proxy, "" = none.
func client(t *testing.T, proxy string) *http.Client {
	tr := &http.Transport{DisableKeepAlives: true}
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		tr.Proxy = http.ProxyURL(u)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// get returns the answer's text and code.
func get(t *testing.T, c *http.Client, url string) (string, int, error) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), resp.StatusCode, err
}

// wantReset connects and wants a reset, which may come as early as that.
func wantReset(t *testing.T, at string) {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: %v, want a reset", at, err)
	}
}

func TestPort(t *testing.T) {
	l := newLab(t, Config{Ports: []Port{{any0(), "web", 80}, {any0(), "closed", 80}, {any0(), "nobody", 80}, {any0(), "localhost", 80}}})
	if text, _, err := get(t, client(t, ""), "http://"+l.at(0)); err != nil || text != "GET "+l.at(0)+" " {
		t.Errorf("got %q, %v", text, err)
	}
	if six := strings.Replace(l.at(0), "127.0.0.1", "[::1]", 1); len(l.server.Doors()[0].listeners) > 1 {
		if text, _, err := get(t, client(t, ""), "http://"+six); err != nil || text != "GET "+six+" " {
			t.Errorf("got %q, %v", text, err)
		}
	}
	for i, want := range []string{"connect to closed:80: connection refused", "find nobody: no such host", ErrLocal.Error()} {
		wantReset(t, l.at(1+i))
		if f := l.failure(); f.Err.Error() != want || f.At.String() != l.at(1+i) || f.Strange {
			t.Errorf("failure %+v, want %q", f, want)
		}
	}
}

func TestSOCKSProxy(t *testing.T) {
	l := newLab(t, Config{SOCKS: []netip.AddrPort{any0()}})
	c := client(t, "socks5h://"+l.at(0))
	if text, _, err := get(t, c, "http://web/x"); err != nil || text != "GET web " {
		t.Errorf("got %q, %v", text, err)
	}
	for _, tt := range []struct{ host, want string }{
		{"closed", "connection refused"}, {"nobody", "host unreachable"}, {"localhost.localhost", "not allowed"},
	} {
		if _, _, err := get(t, c, "http://"+tt.host); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.host, err, tt.want)
		}
		l.failure()
	}
}

func TestHTTPProxy(t *testing.T) {
	l := newLab(t, Config{HTTP: []netip.AddrPort{any0()}})
	c := client(t, "http://"+l.at(0))
	if text, _, err := get(t, c, "http://web/x"); err != nil || text != "GET web " {
		t.Errorf("got %q, %v", text, err)
	}
	text, code, err := get(t, c, "http://closed/")
	if err != nil || code != http.StatusBadGateway || text != "borrownet: connect to closed:80: connection refused\n" {
		t.Errorf("got %q, %d, %v", text, code, err)
	}
	l.failure()
	if text, code, err := get(t, client(t, ""), "http://"+l.at(0)); err != nil || code != http.StatusBadRequest || !strings.Contains(text, "this is a proxy") {
		t.Errorf("without a proxy's request: %q, %d, %v", text, code, err)
	}
}

// TestConnect also speaks before the proxy has answered.
func TestConnect(t *testing.T) {
	l := newLab(t, Config{HTTP: []netip.AddrPort{any0()}})
	const request = "GET / HTTP/1.0\r\nHost: inner\r\n\r\n"
	for _, early := range []bool{false, true} {
		c, err := net.Dial("tcp", l.at(0))
		if err != nil {
			t.Fatal(err)
		}
		head := "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n"
		if early {
			head += request
		}
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 200 Connection established\r\n" {
			t.Fatalf("early %v: %q, %v", early, line, err)
		}
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if !early {
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := io.ReadAll(r); err != nil || !strings.HasSuffix(string(text), "GET inner ") {
			t.Errorf("early %v: %q, %v", early, text, err)
		}
		c.Close()
	}
	for _, tt := range []struct {
		host string
		code int
	}{{"closed:80", 502}, {"web", 400}} {
		c, err := net.Dial("tcp", l.at(0))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", tt.host, tt.host)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode != tt.code {
			t.Errorf("%s: %v, %v", tt.host, resp, err)
		}
		c.Close()
	}
}

// TestOwner: the kernel says whose a connection is.
func TestOwner(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		host := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network]
		ln, err := net.Listen(network, host)
		if err != nil {
			t.Logf("no %s here: %v", network, err)
			continue
		}
		defer ln.Close()
		c, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if uid, err := ownerOf(address(in.RemoteAddr()), address(in.LocalAddr())); err != nil || uid != os.Getuid() {
			t.Errorf("%s: uid %d, %v, want %d", network, uid, err, os.Getuid())
		}
		gone := address(in.RemoteAddr())
		if _, err := ownerOf(netip.AddrPortFrom(gone.Addr(), gone.Port()^1), address(in.LocalAddr())); !errors.Is(err, errNobody) {
			t.Errorf("%s: of nobody: %v", network, err)
		}
	}
}

// TestStrangerIsRefused takes this process for somebody else.
func TestStrangerIsRefused(t *testing.T) {
	l := newLab(t, Config{Ports: []Port{{any0(), "web", 80}}}, func(s *Server) {
		for _, ln := range s.Doors()[0].listeners {
			ln.(*guarded).uid++
		}
	})
	wantReset(t, l.at(0))
	want := fmt.Sprintf("it is of user %d, not %d", os.Getuid(), os.Getuid()+1)
	if f := l.failure(); !f.Strange || f.Err.Error() != want {
		t.Errorf("failure %+v, want %q", f, want)
	}
}

func TestListenTaken(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := address(ln.Addr())
	_, err = Listen(Config{SOCKS: []netip.AddrPort{any0(), at}})
	l, ok := errors.AsType[*ListenError](err)
	if !ok || l.At != at || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v", err)
	}
}
