package session

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/relay"
)

// hookMain is a small borrownet run in a session with a namespace: the place as
// JSON, then the command.
func hookMain(args []string) int {
	var place Place
	if err := json.Unmarshal([]byte(args[0]), &place); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 125
	}
	sockets, err := netns.Dial(place.Socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 125
	}
	defer sockets.Close()
	cfg := supervisor.Config{
		Shim: []string{hooktest.Self, "__exec"}, Argv: args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Identity: supervisor.Identity{Sockets: sockets, Addrs: place.Addrs}, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if place.Ports != "" {
		board, err := switchboard.Dial(place.Ports)
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			return 125
		}
		attention, err := board.Attend(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			return 125
		}
		defer attention.Close()
		cfg.Ports = board
	}
	code, err := supervisor.Run(context.Background(), cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return code
}

// hooked is a program of a session with a namespace, under way.
type hooked struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startHooked starts argv in the session.
func startHooked(t *testing.T, s *Session, argv ...string) *hooked {
	t.Helper()
	needNamespace(t, s)
	if err := supervisor.Probe(); err != nil {
		hooktest.Unavailable(t, "seccomp", err)
	}
	place, err := json.Marshal(s.Place())
	if err != nil {
		t.Fatal(err)
	}
	return start(t, append([]string{"__hook", string(place)}, argv...))
}

func start(t *testing.T, args []string) *hooked {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	cmd := exec.CommandContext(ctx, hooktest.Self, args...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &hooked{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() { h.end(); cancel() })
	return h
}

// end closes the program's standard input and waits for it.
func (h *hooked) end() {
	h.in.Close()
	io.Copy(io.Discard, h.out)
	h.cmd.Wait()
}

func (h *hooked) line() string {
	h.t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatalf("the program said %q, then %v", line, err)
	}
	return strings.TrimSpace(line)
}

// freePort is a port of the laptop that nobody has. It is below those that the kernel gives to who asks for any (32768 to 60999), as
// other tests of this machine do meanwhile.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		port := uint16(20000 + rand.IntN(12000))
		if ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// talk says something to a greeter and returns what it said of its peer.
func talk(t *testing.T, network, at string) string {
	t.Helper()
	c, err := net.DialTimeout(network, at, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 200)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("%s %s: %v", network, at, err)
	}
	return string(buf[:n])
}

// eventually waits for a condition that another process brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(limit) {
			t.Fatalf("waited 30s for: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func refused(at string) bool {
	c, err := net.Dial("tcp", at)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func laptopHas6() bool {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	ln.Close()
	return true
}

// TestListenersAreReachable: whatever a program listens on, the laptop finds it on
// its loopback, at once, and no longer once it is gone.
func TestListenersAreReachable(t *testing.T) {
	l := newLab(t)
	s := l.start()
	v6 := laptopHas6()
	for _, tt := range []struct {
		name, bind string
		from       []string // hosts of the laptop
		peer       string   // what the program sees
		not        string   // host where it is not
	}{
		{"wildcard", "0.0.0.0", []string{"127.0.0.1"}, "127.0.0.1", "::1"},
		{"wildcard6", "::", []string{"127.0.0.1", "::1"}, "127.0.0.1", ""},
		{"v6only", "v6only", []string{"::1"}, "::1", "127.0.0.1"},
		{"pod", podIP.String(), []string{"127.0.0.1"}, podIP.String(), ""},
		{"pod6", podIP6.String(), []string{"::1"}, podIP6.String(), ""},
		{"loopback", "127.0.0.1", []string{"127.0.0.1"}, "127.0.0.1", ""},
		{"loopback6", "::1", []string{"::1"}, "::1", ""},
		{"unbound", "", []string{"127.0.0.1"}, "127.0.0.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := freePort(t)
			h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", tt.bind, strconv.Itoa(int(port)))
			f := strings.Fields(h.line())
			if f[0] != "listening" {
				t.Fatal(f)
			}
			for _, host := range tt.from {
				if !v6 && host == "::1" {
					continue
				}
				if got, want := talk(t, "tcp", net.JoinHostPort(host, f[1])), "hello "+tt.peer; got != want {
					t.Errorf("from %s: %q, want %q", host, got, want)
				}
			}
			if tt.not != "" && v6 && !refused(net.JoinHostPort(tt.not, f[1])) {
				t.Errorf("%s answers too", tt.not)
			}
			h.end()
			for _, host := range tt.from {
				eventually(t, "the port to go with its program", func() bool { return !v6 && host == "::1" || refused(net.JoinHostPort(host, f[1])) })
			}
		})
	}
}

// insideOf is a namespace whose programs listen on what it lists, and never answer.
type insideOf struct {
	list    []netns.Port
	avoided []uint16
	deaf    error               // of Avoid
	asked   int                 // calls of Avoid
	dialed  chan netip.AddrPort // where to; nil: nobody looks
}

func (i *insideOf) Ports() ([]netns.Port, error) { return i.list, nil }

func (i *insideOf) Avoid(ports []uint16) error {
	i.asked++
	if i.deaf == nil {
		i.avoided = ports
	}
	return i.deaf
}

func (i *insideOf) DialTCP(_ context.Context, dst netip.AddrPort) (*net.TCPConn, error) {
	if i.dialed != nil {
		i.dialed <- dst
	}
	return nil, syscall.ECONNREFUSED
}

// TestPortOfTheNextProgram: a program gets the port of one that has just gone, and a look
// falls between its asking and its listening.
func TestPortOfTheNextProgram(t *testing.T) {
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), freePort(t))
	inside := &insideOf{}
	p := newPorts(t.Context(), Publish{}, inside, logger(t))
	p.runs = 1
	defer p.closeAll()
	if err := p.publish(at, false); err != nil {
		t.Fatal(err)
	}
	inside.list = []netns.Port{{Proto: flow.TCP, At: at}}
	p.scan()
	inside.list = nil
	if err := p.publish(at, false); err != nil {
		t.Fatal(err)
	}
	p.scan()
	if got := p.list(); len(got) != 1 || got[0].Port != at.Port() {
		t.Errorf("open: %+v, want port %d", got, at.Port())
	}

	// The next one listens on loopback, where the laptop needs the port.
	inside.list = []netns.Port{{Proto: flow.TCP, At: at}}
	p.scan()
	inside.list = nil
	if err := p.publish(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()), false); err != nil || len(p.list()) != 0 {
		t.Errorf("%v, still open: %+v", err, p.list())
	}
}

// TestDoorsFollowListeners: 127.0.0.1 and ::1 of the laptop lead each to the listener that
// has the port there now, whoever had it at the last look and whoever has it elsewhere.
func TestDoorsFollowListeners(t *testing.T) {
	if !laptopHas6() {
		t.Skip("needs ::1 on this machine")
	}
	port := freePort(t)
	at := func(addr string) netns.Port {
		a, v6only := addr, false
		if addr == "v6only" {
			a, v6only = "::", true
		}
		ip := netip.MustParseAddr(a)
		return netns.Port{Proto: flow.TCP, At: netip.AddrPortFrom(ip, port), IPv6: ip.Is6(), V6Only: v6only}
	}
	inside := &insideOf{dialed: make(chan netip.AddrPort, 1)}
	p := newPorts(t.Context(), Publish{}, inside, logger(t))
	p.dial = func(ctx context.Context, dst netip.AddrPort) (relay.Conn, error) {
		_, err := inside.DialTCP(ctx, dst)
		return nil, err
	}
	p.runs = 1
	defer p.closeAll()
	for _, tt := range []struct {
		listen   []string
		by4, by6 string // which is dialled from 127.0.0.1 and ::1 of the laptop; "" = the door is closed
	}{
		{[]string{"v6only"}, "", "::1"},
		{[]string{"127.0.0.1"}, "127.0.0.1", ""},
		{[]string{"v6only"}, "", "::1"},
		{[]string{"::"}, "127.0.0.1", "127.0.0.1"},
		{[]string{podIP.String()}, podIP.String(), ""},
		{[]string{podIP.String(), podIP6.String(), "127.0.0.1"}, "127.0.0.1", podIP6.String()},
		{[]string{podIP.String()}, podIP.String(), ""},
		{[]string{"127.0.0.1", "::1", podIP.String()}, "127.0.0.1", "::1"},
		{[]string{"0.0.0.0", "v6only"}, "127.0.0.1", "::1"},
		{nil, "", ""},
	} {
		inside.list = nil
		for _, addr := range tt.listen {
			inside.list = append(inside.list, at(addr))
		}
		p.scan()
		for host, want := range map[string]string{"127.0.0.1": tt.by4, "::1": tt.by6} {
			door := net.JoinHostPort(host, strconv.Itoa(int(port)))
			if want == "" {
				if !refused(door) {
					t.Errorf("%s listen: %s is open", tt.listen, host)
				}
				continue
			}
			c, err := net.Dial("tcp", door)
			if err == nil {
				c.Close()
			} else if !errors.Is(err, syscall.ECONNRESET) { // nobody answers in there
				t.Errorf("%s listen: %v", tt.listen, err)
				continue
			}
			select {
			case got := <-inside.dialed:
				if got != netip.AddrPortFrom(netip.MustParseAddr(want), port) {
					t.Errorf("%s listen: %s leads to %v, want %s", tt.listen, host, got, want)
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("%s listen: %s leads nowhere", tt.listen, host)
			}
		}
		ports := 1
		if tt.listen == nil {
			ports = 0
		}
		if got := p.list(); len(got) != ports {
			t.Errorf("%s listen: status shows %+v", tt.listen, got)
		}
	}
}

// TestAvoidIsGivenUp: where the session's kernel can be told nothing, it is tried once, and said once.
func TestAvoidIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int // of four looks
	}{
		{&os.PathError{Op: "write", Path: "/proc/sys", Err: syscall.EROFS}, 1},
		{fmt.Errorf("open: %w", syscall.EACCES), 1},
		{syscall.ENOBUFS, 4},
	} {
		var said bytes.Buffer
		inside := &insideOf{deaf: tt.err}
		p := newPorts(t.Context(), Publish{}, inside, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))
		p.avoided = []uint16{1} // not what is taken, whatever that is
		for range 4 {
			p.scan()
		}
		if lines := strings.Count(said.String(), "not avoided"); inside.asked != tt.want || lines != tt.want {
			t.Errorf("%v: asked %d times, said %d times, want %d\n%s", tt.err, inside.asked, lines, tt.want, said.String())
		}
	}
}

// TestPortsOfOthersAreAvoided: the session's kernel is told which of the ports that it
// gives to who asks for any somebody on the laptop has, and which no more.
func TestPortsOfOthersAreAvoided(t *testing.T) {
	inside := &insideOf{}
	p := newPorts(t.Context(), Publish{}, inside, logger(t))
	var ln net.Listener
	for port := netns.FirstAutoPort; ln == nil; port++ {
		var err error
		if ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil && port == 65535 {
			t.Fatal(err)
		}
	}
	defer ln.Close()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	if p.scan(); !slices.Contains(inside.avoided, port) {
		t.Errorf("avoided: %v, want %d too", inside.avoided, port)
	}
	ln.Close()
	eventually(t, "the port to be free again", func() bool { p.scan(); return !slices.Contains(inside.avoided, port) })
}

// TestPortsAsAUser runs these tests as an ordinary user, who may open neither the
// TUN nor ports below 1024.
func TestPortsAsAUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("this is an ordinary user")
	}
	cmd := exec.CommandContext(t.Context(), hooktest.Self, "-test.v", "-test.timeout=4m",
		"-test.run=^(TestListenersAreReachable|TestPortIsTaken|TestPrivilegedPort|TestPublishPolicy|TestDatagramPorts|TestLocalhost6|TestLocalByPolicy|TestRemoteLocalhost)$")
	cmd.Env = append(os.Environ(), "HOME=/tmp", "XDG_RUNTIME_DIR=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		hooktest.Unavailable(t, "setuid", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), ": needs netns: ") {
		hooktest.Unavailable(t, "netns", errors.New("an ordinary user gets none"))
	}
	if n := strings.Count(string(out), "\n--- PASS: "); n < 7 {
		t.Errorf("%d tests passed\n%s", n, out)
	}
}

// TestPortIsTaken: a program hears of a port that somebody else on the laptop has.
func TestPortIsTaken(t *testing.T) {
	l := newLab(t)
	s := l.start()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, bind := range []string{"0.0.0.0", "::", "127.0.0.1"} {
		h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", bind, port)
		if got := h.line(); got != "EADDRINUSE" {
			t.Errorf("%s: %q, want EADDRINUSE", bind, got)
		}
		h.end() // it holds the port in the session until then
	}
	// On the pod's address nobody is in its way.
	if got := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", podIP.String(), port).line(); !strings.HasPrefix(got, "listening") {
		t.Error(got)
	}
}

// TestBusyListener: a program that is slow to accept is waited for. That its kernel says
// nothing is no reason to refuse, nor to try the laptop's own port.
func TestBusyListener(t *testing.T) {
	l := newLab(t)
	s := l.start()
	port := strconv.Itoa(int(freePort(t)))
	h := startHooked(t, s, hooktest.Self, "__app", "crowd", port)
	for range crowd {
		if got, want := h.line(), "ok peer 127.0.0.1:"+port; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestPrivilegedPort: nobody needs root to listen on :80 in a session.
func TestPrivilegedPort(t *testing.T) {
	l := newLab(t)
	s := l.start()
	h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", "0.0.0.0", "80")
	if got := h.line(); got != "listening 80" {
		t.Fatal(got)
	}
	c := startHooked(t, s, hooktest.Self, "__app", "talk", "127.0.0.1:80")
	if got := c.line(); got != "hello 127.0.0.1" {
		t.Errorf("from the session: %q", got)
	}
	if os.Getuid() == 0 {
		return // root may have the port on the laptop too
	}
	eventually(t, "status to say why the port is not published", func() bool {
		for _, p := range s.Status(t.Context(), false).Ports {
			if p.Port == 80 && p.Problem == "port 80 of this machine: permission denied" {
				return true
			}
		}
		return false
	})
}

// TestPortIsFreeAgain: why a port was not published is not said any more once it is.
func TestPortIsFreeAgain(t *testing.T) {
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	host := netip.MustParseAddrPort(taken.LocalAddr().String()).Port()
	ctx, cancel := context.WithCancel(t.Context())
	p := newPorts(ctx, Publish{As: map[uint16]uint16{53: host}}, &insideOf{list: []netns.Port{{Proto: flow.UDP, At: netip.MustParseAddrPort("0.0.0.0:53")}}}, slog.New(slog.DiscardHandler))
	defer p.wg.Wait()
	defer p.closeAll()
	defer cancel()
	want := PublishedPort{Proto: "udp", Port: 53, Host: host, Problem: fmt.Sprintf("port %d of this machine: address already in use", host)}
	for range 2 {
		p.scan()
		if got := p.list(); len(got) != 1 || got[0] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		taken.Close()
		want.Problem = ""
	}
}

// TestPortIsTakenInOneFamily: what is wrong with one listener of a port is said once, and as long as it is, beside another
// that is published.
func TestPortIsTakenInOneFamily(t *testing.T) {
	if !laptopHas6() {
		t.Skip("needs ::1 on this machine")
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := netip.MustParseAddrPort(taken.Addr().String()).Port()
	inside := &insideOf{}
	for _, a := range []string{"127.0.0.1", "::1"} {
		ip := netip.MustParseAddr(a)
		inside.list = append(inside.list, netns.Port{Proto: flow.TCP, At: netip.AddrPortFrom(ip, port), IPv6: ip.Is6()})
	}
	var log bytes.Buffer
	p := newPorts(t.Context(), Publish{}, inside, slog.New(slog.NewTextHandler(&log, nil)))
	p.runs = 1
	defer p.closeAll()
	for range 3 {
		p.scan()
		problems := 0
		for _, got := range p.list() {
			if got.Problem != "" {
				problems++
			}
		}
		if problems != 1 {
			t.Errorf("status shows %+v, want one problem", p.list())
		}
	}
	if n := strings.Count(log.String(), "port is not published"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, log.String())
	}
}

// TestPortsOfTwoFamilies: where a program of the session listens in one family and somebody of the laptop on the same port in
// the other, each is reached where he is, from the session as from the laptop.
func TestPortsOfTwoFamilies(t *testing.T) {
	if !laptopHas6() {
		t.Skip("needs ::1 on this machine")
	}
	l := newLab(t)
	s := l.start()
	for _, tt := range []struct{ bind, insideAt, laptopAt string }{
		{"v6only", "::1", "127.0.0.1"},
		{"0.0.0.0", "127.0.0.1", "::1"},
		{"v6only", "::1", "127.0.0.7"}, // at which nothing is published
	} {
		port := strconv.Itoa(int(freePort(t)))
		ln, err := net.Listen("tcp", net.JoinHostPort(tt.laptopAt, port))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go answerAll(ln, "the laptop") // ends with ln
		h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", tt.bind, port)
		if got, want := h.line(), "listening "+port; got != want {
			t.Fatalf("%s: got %q, want %q", tt.bind, got, want)
		}
		for at, want := range map[string]string{tt.insideAt: "hello ", tt.laptopAt: "the laptop"} {
			at = net.JoinHostPort(at, port)
			if got := startHooked(t, s, hooktest.Self, "__app", "talk", at).line(); !strings.HasPrefix(got, want) {
				t.Errorf("the session at %s hears %q, want %q", at, got, want)
			}
			if got := talk(t, "tcp", at); !strings.HasPrefix(got, want) {
				t.Errorf("the laptop at %s hears %q, want %q", at, got, want)
			}
		}
	}
}

// answerAll says so to everybody until ln is closed.
func answerAll(ln net.Listener, text string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, text) // who has gone hears nothing
		c.Close()
	}
}

// TestOtherLoopbackAddresses: the laptop's name leads to 127.0.1.1 on Debian. Whoever listens there is reached from the session,
// on the laptop and on all addresses of the session, and who does not is refused.
func TestOtherLoopbackAddresses(t *testing.T) {
	l := newLab(t)
	s := l.start()
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.1.1:%d", freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go answerAll(ln, "the laptop") // ends with ln
	h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", "0.0.0.0", strconv.Itoa(int(freePort(t))))
	f := strings.Fields(h.line())
	if f[0] != "listening" {
		t.Fatal(f)
	}
	for _, tt := range []struct{ at, want string }{
		{ln.Addr().String(), "the laptop"},
		{"127.0.1.1:" + f[1], "hello 127.0.0.1"},
		{"127.0.1.1:1", "ECONNREFUSED"},
	} {
		if got := startHooked(t, s, hooktest.Self, "__app", "talk", tt.at).line(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.at, got, tt.want)
		}
	}

	udp, err := net.ListenPacket("udp4", "127.0.1.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	go func() { // ends with udp
		buf := make([]byte, 16)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(buf[:n], from)
		}
	}()
	c, err := newProgram(t, s).connect(netip.MustParseAddrPort(udp.LocalAddr().String()), unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c, "over UDP")
}

// TestPublishPolicy publishes a port under another number, and none.
func TestPublishPolicy(t *testing.T) {
	for _, none := range []bool{false, true} {
		l := newLab(t)
		port, as := freePort(t), freePort(t)
		o := l.opening()
		o.req.Publish = Publish{None: none, As: map[uint16]uint16{port: as}}
		s, err := o.Start(t.Context(), "api", l.observer())
		if err != nil {
			if errors.Is(err, errors.ErrUnsupported) {
				hooktest.Unavailable(t, "netns", err)
			}
			t.Fatal(err)
		}
		defer s.Close()
		h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", "0.0.0.0", strconv.Itoa(int(port)))
		if got := h.line(); !strings.HasPrefix(got, "listening") {
			t.Fatal(got)
		}
		if !refused(fmt.Sprintf("127.0.0.1:%d", port)) {
			t.Errorf("none %v: the program's own number answers", none)
		}
		at := fmt.Sprintf("127.0.0.1:%d", as)
		if none {
			if !refused(at) {
				t.Error("published all the same")
			}
			continue
		}
		if got := talk(t, "tcp", at); got != "hello 127.0.0.1" {
			t.Errorf("got %q", got)
		}
		if got := s.Status(t.Context(), false).Ports; len(got) != 1 || got[0] != (PublishedPort{Proto: "tcp", Port: port, Host: as}) {
			t.Errorf("status shows %+v", got)
		}
	}
}

// TestDatagramPorts: UDP ports of programs are found and published.
func TestDatagramPorts(t *testing.T) {
	l := newLab(t)
	s := l.start()
	port := freePort(t)
	h := startHooked(t, s, hooktest.Self, "__app", "greet", "udp", "127.0.0.1", strconv.Itoa(int(port)))
	if got := h.line(); !strings.HasPrefix(got, "listening") {
		t.Fatal(got)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	has := func() bool {
		for _, p := range s.Status(t.Context(), false).Ports {
			if p == (PublishedPort{Proto: "udp", Port: port, Host: port}) {
				return true
			}
		}
		return false
	}
	eventually(t, "the port to be published", has)
	for range 2 {
		if got := talk(t, "udp", at); got != "hello 127.0.0.1" {
			t.Errorf("got %q", got)
		}
	}
	// Programs of the session reach it too, and get their answers themselves.
	if got := startHooked(t, s, hooktest.Self, "__app", "talk", at, "udp").line(); got != "hello 127.0.0.1" {
		t.Errorf("from the session: %q", got)
	}
	h.end()
	eventually(t, "the port to go with its program", func() bool { return !has() })
}

// TestClosedPortOfTheSession: a port that was published a moment ago does not
// seem open to programs of the session.
func TestClosedPortOfTheSession(t *testing.T) {
	l := newLab(t)
	s := l.start()
	port := freePort(t)
	h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", "0.0.0.0", strconv.Itoa(int(port)))
	h.line()
	h.end()
	if got := startHooked(t, s, hooktest.Self, "__app", "talk", fmt.Sprintf("127.0.0.1:%d", port)).line(); got != "ECONNREFUSED" {
		t.Errorf("got %q, want ECONNREFUSED", got)
	}
}

// TestLocalByPolicy: what the policy calls local is reached from the laptop, TCP and
// UDP, with and without a namespace; everything else is not.
func TestLocalByPolicy(t *testing.T) {
	here := ownAddress(t)
	for _, rung := range []Rung{hook.Seccomp, hook.Relay} {
		t.Run(string(rung), func(t *testing.T) {
			tcp, err := net.Listen("tcp", net.JoinHostPort(here.String(), "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			go func() { // ends with tcp
				for {
					c, err := tcp.Accept()
					if err != nil {
						return
					}
					io.WriteString(c, "the laptop's network")
					c.Close()
				}
			}()
			udp, err := net.ListenPacket("udp", net.JoinHostPort(here.String(), "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			go func() { // ends with udp
				buf := make([]byte, 100)
				for {
					n, from, err := udp.ReadFrom(buf)
					if err != nil {
						return
					}
					udp.WriteTo(buf[:n], from)
				}
			}()
			for _, local := range []bool{false, true} {
				l := newLab(t)
				o := l.opening()
				o.req.Hook = rung
				if local {
					o.req.Local = []netip.Prefix{netip.PrefixFrom(here, here.BitLen())}
				}
				s, err := o.Start(t.Context(), "api", l.observer())
				if err != nil {
					if errors.Is(err, errors.ErrUnsupported) {
						hooktest.Unavailable(t, "netns", err)
					}
					t.Fatal(err)
				}
				defer s.Close()
				run := startHooked
				if rung == hook.Relay {
					run = relayHook
				}
				want, wantUDP := "the laptop's network", "hello"
				if !local {
					want, wantUDP = "ECONNREFUSED", ""
				}
				if got := run(t, s, hooktest.Self, "__app", "talk", tcp.Addr().String()).line(); got != want {
					t.Errorf("local %v: TCP %q, want %q", local, got, want)
				}
				if wantUDP == "" {
					continue
				}
				if got := run(t, s, hooktest.Self, "__app", "talk", udp.LocalAddr().String(), "udp").line(); got != wantUDP {
					t.Errorf("local %v: UDP %q, want %q", local, got, wantUDP)
				}
			}
		})
	}
}

// TestRemoteLocalhost: a port of localhost that was asked for is the pod's, and no
// other; programs cannot go around that.
func TestRemoteLocalhost(t *testing.T) {
	admin := netip.MustParseAddrPort("127.0.0.1:9901")
	l := newLab(t)
	l.cluster.world.TCP[admin] = func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "the pod's own")
	}
	l.cluster.world.TCP[netip.MustParseAddrPort("127.0.0.1:9902")] = l.cluster.world.TCP[admin]
	o := l.opening()
	o.req.RemoteLocalhost = []uint16{9901, 9903}
	s, err := o.Start(t.Context(), "api", l.observer())
	if err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			hooktest.Unavailable(t, "netns", err)
		}
		t.Fatal(err)
	}
	defer s.Close()
	for _, tt := range []struct{ at, want string }{
		{"127.0.0.1:9901", "the pod's own"},
		{"localhost:9901", "the pod's own"}, // ::1 is refused, 127.0.0.1 tried next
		{"127.0.0.1:9902", "ECONNREFUSED"},  // the laptop's, where nobody listens
		{"127.0.0.1:9903", "ECONNREFUSED"},  // the pod's, where nobody listens
		{"192.0.0.3:9901", "drop"},
	} {
		p := newProgram(t, s)
		if tt.want == "drop" {
			if f, err := p.connect(netip.MustParseAddrPort(tt.at), unix.SOCK_STREAM|unix.SOCK_NONBLOCK); err == nil {
				f.Close()
				t.Errorf("%s is open to programs", tt.at)
			}
			eventually(t, "the packet to be dropped", func() bool { return s.fabric.drops()["session/control"] > 0 })
			continue
		}
		if got := startHooked(t, s, hooktest.Self, "__app", "talk", tt.at).line(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.at, got, tt.want)
		}
	}
	o = l.opening()
	o.req.RemoteLocalhost, o.req.Hook = []uint16{9901}, hook.Relay
	if s, err := o.Start(t.Context(), "api", l.observer()); err == nil {
		s.Close()
		t.Error("the relay rung promises what it cannot do")
	}
}

// TestRemoteLocalhostOfALostPod: who connects to the pod's localhost does not wait for a pod that is lost, neither if that
// happens meanwhile nor afterwards.
func TestRemoteLocalhostOfALostPod(t *testing.T) {
	admin := netip.MustParseAddrPort("127.0.0.1:9901")
	l := newLab(t)
	o := l.opening()
	o.req.RemoteLocalhost = []uint16{admin.Port()}
	s, err := o.Start(t.Context(), "api", l.observer())
	if err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			hooktest.Unavailable(t, "netns", err)
		}
		t.Fatal(err)
	}
	defer s.Close()
	l.await(Ready)
	p := newProgram(t, s)
	l.cluster.breakCarriers(errors.New("connection refused"))
	l.await(Reconnecting)
	waits := p.socket(admin, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
	defer unix.Close(waits)
	if err := unix.Connect(waits, sockaddr(admin)); err != unix.EINPROGRESS {
		t.Fatalf("connect: %v", err)
	}
	l.cluster.mu.Lock()
	l.cluster.ended = true
	l.cluster.mu.Unlock()
	l.await(Lost)
	if err := connected(waits, unix.EINTR); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect before the loss: %v, want ECONNREFUSED", err)
	}
	if _, err := p.connect(admin, unix.SOCK_STREAM); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect after the loss: %v, want ECONNREFUSED", err)
	}
}

// ownAddress is an address of this machine that is not loopback.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	nets, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	t.Skip("needs an IPv4 address besides loopback")
	return netip.Addr{}
}

// relayHook is hook for a session without a namespace.
func relayHook(t *testing.T, s *Session, argv ...string) *hooked {
	t.Helper()
	return start(t, append([]string{"__run", s.Place().Socket}, argv...))
}

// TestLocalhost6: localhost by its IPv6 name is the laptop's, and leads to other
// programs of the session.
func TestLocalhost6(t *testing.T) {
	if !laptopHas6() {
		t.Skip("needs ::1 on this machine")
	}
	l := newLab(t)
	s := l.start()
	for _, bind := range []string{"::1", "::", "v6only"} {
		h := startHooked(t, s, hooktest.Self, "__app", "greet", "tcp", bind, strconv.Itoa(int(freePort(t))))
		f := strings.Fields(h.line())
		if f[0] != "listening" {
			t.Fatalf("%s: %s", bind, f)
		}
		want := "hello ::1"
		if bind == "::" {
			want = "hello 127.0.0.1"
		}
		if got := startHooked(t, s, hooktest.Self, "__app", "talk", "[::1]:"+f[1]).line(); got != want {
			t.Errorf("%s: got %q, want %q", bind, got, want)
		}
	}
}

// appGreet listens and answers with who spoke, until its standard input ends. The
// arguments are the protocol, the address ("" = never bound) and the port.
func appGreet(args []string) error {
	port, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	domain, typ, bind := unix.AF_INET, unix.SOCK_STREAM, args[1]
	if args[0] == "udp" {
		typ = unix.SOCK_DGRAM
	}
	if strings.Contains(bind, ":") || bind == "v6only" {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if bind == "v6only" {
		bind = "::"
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if bind != "" {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(netip.MustParseAddr(bind), uint16(port)))); err != nil {
			fmt.Println("bind", errnoName(err))
			return nil
		}
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 16); err != nil {
			fmt.Println(errnoName(err))
			return nil
		}
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Println("listening", addrOf(at).Port())
	go func() {
		for greetOne(fd, typ) == nil {
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	return nil
}

func greetOne(fd, typ int) error {
	buf := make([]byte, 100)
	if typ == unix.SOCK_DGRAM {
		var n int
		var from unix.Sockaddr
		if err := hooktest.Again(func() (err error) { n, from, err = unix.Recvfrom(fd, buf, 0); return err }); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte(string(buf[:n])+" "+addrOf(from).Addr().String()), 0, from)
	}
	var c, n int
	var from unix.Sockaddr
	if err := hooktest.Again(func() (err error) { c, from, err = unix.Accept4(fd, unix.SOCK_CLOEXEC); return err }); err != nil {
		return err
	}
	defer unix.Close(c)
	if hooktest.Again(func() (err error) { n, err = unix.Read(c, buf); return err }) != nil {
		return nil // this one has gone, others may come
	}
	_, _ = unix.Write(c, []byte(string(buf[:n])+" "+addrOf(from).Addr().String()))
	return nil
}

// crowd is how many connect at once in appCrowd.
const crowd = 4

// appCrowd listens on a port with room for one connection, which it takes late, and says
// how those fare that connect meanwhile.
func appCrowd(args []string) error {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 0); err != nil {
		return err
	}
	dst := netip.AddrPortFrom(localhost, uint16(port))
	results := make(chan string, crowd)
	results <- connectOnce(dst, 50*time.Second)
	for waits := uint32(0); waits == 0; { // until it is in the queue, which is full then
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		waits = info.Unacked
		time.Sleep(time.Millisecond)
	}
	for range crowd - 1 {
		go func() { results <- connectOnce(dst, 50*time.Second) }()
	}
	// Longer than a question to the session's kernel goes unanswered before it comes again.
	time.Sleep(1500 * time.Millisecond)
	go func() { // ends with the program
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err == nil {
				unix.Close(c)
			} else if err != unix.EINTR {
				return
			}
		}
	}()
	for range crowd {
		fmt.Println(<-results)
	}
	return nil
}

// appTalk says hello and prints the answer.
func appTalk(args []string) error {
	network := "tcp"
	if len(args) > 1 {
		network = args[1]
	}
	c, err := net.DialTimeout(network, args[0], 30*time.Second)
	if err != nil {
		fmt.Println(errnoName(err))
		return nil
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	fmt.Println(string(buf[:n]))
	return nil
}
