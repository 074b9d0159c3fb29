package broker

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/switchboard"
)

var (
	dst     = netip.MustParseAddrPort("192.0.2.1:80")
	refused = netip.MustParseAddrPort("192.0.2.2:80")
	silent  = netip.MustParseAddrPort("192.0.2.3:80")
	laptop  = netip.MustParseAddrPort("127.0.0.1:80")
)

// taken is a port that the laptop has given to somebody else.
var taken atomic.Uint32

// world is a handler: TCP says the destination, UDP and DNS echo.
type world struct{ gone chan struct{} }

func (w *world) Resolve(_ context.Context, query []byte) []byte {
	if string(query) == "fail" {
		return nil
	}
	return append([]byte("re: "), query...)
}

func (w *world) OpenTCP(ctx context.Context, to netip.AddrPort) (func(context.Context, *net.TCPConn), error) {
	switch to {
	case refused:
		return nil, syscall.ECONNREFUSED
	case laptop:
		return nil, switchboard.ErrLocal
	case silent:
		<-ctx.Done()
		close(w.gone)
		return nil, ctx.Err()
	}
	return func(_ context.Context, c *net.TCPConn) {
		io.WriteString(c, to.String())
		c.Close()
	}, nil
}

func (w *world) OpenUDP(context.Context, netip.AddrPort) (func(context.Context, *net.UDPConn), error) {
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

func (w *world) Publish(_ context.Context, at netip.AddrPort, _ bool) error {
	if uint32(at.Port()) == taken.Load() {
		return syscall.EADDRINUSE
	}
	return nil
}

// serve runs a server until the test ends, and checks that it leaves neither
// goroutines nor descriptors.
func serve(t *testing.T) (string, *world) {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{gone: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&Server{Listener: ln, Handler: w}).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); runtime.Gosched() {
			if runtime.NumGoroutine() <= goroutines && descriptors(t) <= files {
				break
			}
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			t.Errorf("%d goroutines before, %d after", goroutines, n)
		}
		if n := descriptors(t); n > files {
			t.Errorf("%d descriptors before, %d after", files, n)
		}
	})
	return path, w
}

func descriptors(t *testing.T) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range ents {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(link, "socket:") {
			n++
		}
	}
	return n
}

// request is a bn_request as the library writes it.
func request(op hook.Op, size int, to netip.AddrPort) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, 1)
	b = ne.AppendUint32(b, uint32(op))
	b = ne.AppendUint32(b, uint32(size))
	var family uint16
	var addr [16]byte
	if to.IsValid() {
		family = unix.AF_INET
		copy(addr[:], to.Addr().AsSlice())
	}
	b = ne.AppendUint16(b, family)
	b = ne.AppendUint16(b, to.Port())
	return append(b, addr[:]...)
}

// ask makes one call and returns the answer, the port in it and what follows.
func ask(t *testing.T, path string, req []byte, payload string, fd int) (verdict, errno uint32, port uint16, body string) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix(req, oob, nil); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, payload)
	b, err := io.ReadAll(c)
	if err != nil || len(b) < hook.AnswerSize {
		return 99, 0, 0, ""
	}
	ne := binary.NativeEndian
	return ne.Uint32(b), ne.Uint32(b[4:]), ne.Uint16(b[14:]), string(b[hook.AnswerSize:])
}

func newSocket(t *testing.T, typ int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestResolve(t *testing.T) {
	path, _ := serve(t)
	if v, _, _, body := ask(t, path, request(hook.OpResolve, 5, netip.AddrPort{}), "query", -1); v != 0 || body != "re: query" {
		t.Errorf("got %d, %q", v, body)
	}
	if v, e, _, _ := ask(t, path, request(hook.OpResolve, 4, netip.AddrPort{}), "fail", -1); v != 1 || e != uint32(unix.ENETDOWN) {
		t.Errorf("no reply: got %d, %d", v, e)
	}
}

func TestConnect(t *testing.T) {
	path, _ := serve(t)
	fd := newSocket(t, unix.SOCK_STREAM)
	if v, e, _, _ := ask(t, path, request(hook.OpConnect, 0, dst), "", fd); v != 0 {
		t.Fatalf("got %d, errno %d", v, e)
	}
	at := farend.Peer(fd)
	if v, _, port, _ := ask(t, path, request(hook.OpPeer, 0, at), "", fd); v != 0 || port != dst.Port() {
		t.Errorf("peer: got %d, port %d", v, port)
	}
	buf := make([]byte, 100)
	if n, err := unix.Read(fd, buf); err != nil || string(buf[:n]) != dst.String() {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if v, e, _, _ := ask(t, path, request(hook.OpConnect, 0, dst), "", fd); v != 1 || e != uint32(unix.EISCONN) {
		t.Errorf("again: %d, %d", v, e)
	}
	for to, want := range map[netip.AddrPort]uint32{refused: 1, laptop: 2} {
		if v, _, _, _ := ask(t, path, request(hook.OpConnect, 0, to), "", newSocket(t, unix.SOCK_STREAM)); v != want {
			t.Errorf("%v: verdict %d, want %d", to, v, want)
		}
	}
}

func TestListen(t *testing.T) {
	path, _ := serve(t)
	fd := newSocket(t, unix.SOCK_STREAM)
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		t.Fatal(err)
	}
	if v, e, _, _ := ask(t, path, request(hook.OpListen, 0, netip.AddrPort{}), "", fd); v != 0 {
		t.Errorf("free: %d, errno %d", v, e)
	}
	taken.Store(uint32(farend.Name(fd).Port()))
	if v, e, _, _ := ask(t, path, request(hook.OpListen, 0, netip.AddrPort{}), "", fd); v != 1 || e != uint32(unix.EADDRINUSE) {
		t.Errorf("taken: %d, errno %d", v, e)
	}
}

// TestProgramGone cancels the dial of a program that hangs up.
func TestProgramGone(t *testing.T) {
	path, w := serve(t)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix(request(hook.OpConnect, 0, silent), unix.UnixRights(newSocket(t, unix.SOCK_STREAM)), nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case <-w.gone:
	case <-time.After(30 * time.Second):
		t.Error("the dial goes on")
	}
}

// TestDatagrams keeps a flow for as long as the program has its socket.
func TestDatagrams(t *testing.T) {
	path, _ := serve(t)
	fd := newSocket(t, unix.SOCK_DGRAM)
	v, e, port, _ := ask(t, path, request(hook.OpSend, 0, dst), "", fd)
	if v != 0 {
		t.Fatalf("got %d, errno %d", v, e)
	}
	if _, _, again, _ := ask(t, path, request(hook.OpSend, 0, dst), "", fd); again != port {
		t.Errorf("a second flow for the same destination: ports %d and %d", port, again)
	}
	far := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	if err := unix.Sendto(fd, []byte("hello"), 0, farend.Sockaddr(unix.AF_INET, far)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil || string(buf[:n]) != "hello" || farend.AddrPort(from) != far {
		t.Errorf("got %q from %v, %v", buf[:n], from, err)
	}
	if v, _, p, _ := ask(t, path, request(hook.OpPeer, 0, far), "", fd); v != 0 || p != dst.Port() {
		t.Errorf("peer: got %d, port %d", v, p)
	}
	// Another socket is not that flow's.
	if v, _, _, _ := ask(t, path, request(hook.OpPeer, 0, far), "", newSocket(t, unix.SOCK_DGRAM)); v != 2 {
		t.Errorf("a stranger's peer: verdict %d, want local", v)
	}
}

func TestSweep(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{}
	f := newFlows(ctx, w, slog.New(slog.DiscardHandler))
	defer f.close()
	defer cancel()
	fd := newSocket(t, unix.SOCK_DGRAM)
	if a := f.target(ctx, farend.Socket{FD: fd, Domain: unix.AF_INET}, dst, false); a.Verdict != hook.VerdictDone {
		t.Fatalf("got %+v", a)
	}
	if f.sweepOnce(); len(f.byPair) != 1 {
		t.Fatal("a flow ended whose socket is open")
	}
	unix.Close(fd)
	f.sweepOnce()
	if f.sweepOnce(); len(f.byPair) != 0 || len(f.byDst) != 0 {
		t.Errorf("%d flows stay", len(f.byPair))
	}
}

// TestNonsense sends what no library sends.
func TestNonsense(t *testing.T) {
	path, _ := serve(t)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, c := range map[string]struct {
		req  []byte
		fd   int
		want uint32
	}{
		"short":      {request(hook.OpConnect, 0, dst)[:7], -1, 99},
		"version":    {append([]byte{9}, request(hook.OpConnect, 0, dst)[1:]...), -1, 99},
		"no-socket":  {request(hook.OpConnect, 0, dst), -1, 1},
		"a-file":     {request(hook.OpConnect, 0, dst), int(file.Fd()), 1},
		"no-address": {request(hook.OpSend, 0, netip.AddrPort{}), newSocket(t, unix.SOCK_DGRAM), 1},
	} {
		if v, _, _, _ := ask(t, path, c.req, "", c.fd); v != c.want {
			t.Errorf("%s: verdict %d, want %d", name, v, c.want)
		}
	}
}
