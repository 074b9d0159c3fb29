package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/netstack/link"
)

// logger logs into the test's output.
func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func servers() map[netip.AddrPort]func(net.Conn) {
	echo := func(c net.Conn) {
		defer c.Close()
		io.Copy(c, c)
	}
	return map[netip.AddrPort]func(net.Conn){orders: echo, orders6: echo}
}

// answerDNS knows one name.
func answerDNS(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) == 0 {
		return nil
	}
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	if q := m.Questions[0]; q.Name.String() == "orders.shop.svc.cluster.local." && q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5},
			Body:   &dnsmessage.AResource{A: orders.Addr().As4()},
		}}
	} else {
		m.RCode = dnsmessage.RCodeNameError
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// echo sends text on f and wants it back.
func echo(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(f, got); err != nil || string(got) != text {
		t.Fatalf("echo %q: %v", got, err)
	}
}

func TestProgramReachesTheCluster(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	for _, dst := range []netip.AddrPort{orders, orders6} {
		f, err := p.connect(dst, unix.SOCK_STREAM)
		if err != nil {
			t.Fatalf("connect %s: %v", dst, err)
		}
		echo(t, f, strings.Repeat("0123456789", 100))
	}
	u, err := p.connect(netip.AddrPortFrom(orders.Addr(), 7), unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, u, "datagram")
	for _, tt := range []struct {
		name string
		dst  netip.AddrPort
		want syscall.Errno
	}{
		{"refused", netip.AddrPortFrom(orders.Addr(), 81), syscall.ECONNREFUSED},
		{"unreachable", nowhere, syscall.EHOSTUNREACH},
		{"laptop_closed", netip.MustParseAddrPort("127.0.0.1:1"), syscall.ECONNREFUSED},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := p.connect(tt.dst, unix.SOCK_STREAM); !errors.Is(err, tt.want) {
				t.Errorf("connect %s: %v, want %v", tt.dst, err, tt.want)
			}
		})
	}
	st := s.Status(t.Context(), true)
	if st.State != Ready || st.RoundTrip == 0 || st.Carrier != "spdy" || st.Traffic.BytesIn == 0 || st.Agent.TCPFlows == nil {
		t.Errorf("status %+v", st)
	}
	if env := s.Place().Env; len(env) != 1 || env[0] != "GREETING=hello" {
		t.Errorf("environment %q", env)
	}
}

func TestBulk(t *testing.T) {
	l := newLab(t)
	p := newProgram(t, l.start())
	f, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("borrownet"), 1<<20)
	written := make(chan error, 1)
	go func() {
		_, err := f.Write(data)
		written <- err
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(f, got); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Error("the bytes that came back are not those that went out")
	}
}

func TestLoopbackIsTheLaptops(t *testing.T) {
	l := newLab(t)
	p := newProgram(t, l.start())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	f, err := p.connect(netip.MustParseAddrPort(ln.Addr().String()), unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, "local")

	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo(buf[:n], from)
		}
	}()
	d, err := p.connect(netip.MustParseAddrPort(u.LocalAddr().String()), unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, d, "local datagram")

	closed, err := p.connect(netip.MustParseAddrPort("127.0.0.1:1"), unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := closed.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if _, err := closed.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("read from a closed UDP port: %v, want ECONNREFUSED", err)
	}
}

// TestProgramsMeetOnLoopback lets two programs of the session talk.
func TestProgramsMeetOnLoopback(t *testing.T) {
	l := newLab(t)
	p := newProgram(t, l.start())
	here := netip.MustParseAddrPort("127.0.0.1:18080")
	ln := p.socket(here, unix.SOCK_STREAM)
	defer unix.Close(ln)
	if err := unix.Bind(ln, sockaddr(here)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(ln, 1); err != nil {
		t.Fatal(err)
	}
	go func() {
		var fd int
		var from unix.Sockaddr
		if hooktest.Again(func() (err error) { fd, from, err = unix.Accept(ln); return err }) != nil {
			return
		}
		c := os.NewFile(uintptr(fd), "accepted")
		defer c.Close()
		if a, ok := from.(*unix.SockaddrInet4); !ok || a.Addr != [4]byte{127, 0, 0, 1} {
			t.Errorf("peer is %+v", from)
		}
		io.Copy(c, c)
	}()
	f, err := p.connect(here, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, "inside")

	udp := netip.MustParseAddrPort("127.0.0.1:18081")
	server := p.socket(udp, unix.SOCK_DGRAM)
	defer unix.Close(server)
	if err := unix.Bind(server, sockaddr(udp)); err != nil {
		t.Fatal(err)
	}
	d, err := p.connect(udp, unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteString("ping"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	var n int
	var from unix.Sockaddr
	err = hooktest.Again(func() (err error) { n, from, err = unix.Recvfrom(server, buf, 0); return err })
	if err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("server got %q, %v", buf[:n], err)
	}
	if err := unix.Sendto(server, []byte("pong"), 0, from); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Read(buf); err != nil || string(buf[:n]) != "pong" {
		t.Errorf("client got %q, %v", buf[:n], err)
	}
}

func TestNamesOfThePod(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	server := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.53"), 53) // a nameserver whatever this machine's are
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("orders."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	text, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	f, err := p.connect(server, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(append([]byte{byte(len(text) >> 8), byte(len(text))}, text...))
	var size [2]byte
	if _, err := io.ReadFull(f, size[:]); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, int(size[0])<<8|int(size[1]))
	if _, err := io.ReadFull(f, reply); err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	a := ""
	for _, r := range m.Answers {
		if body, ok := r.Body.(*dnsmessage.AResource); ok {
			a = netip.AddrFrom4(body.A).String()
		}
	}
	if a != orders.Addr().String() {
		t.Errorf("answer %+v, want %s", m, orders.Addr())
	}
}

func TestFlowsSurviveALostCarrier(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	f, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, "before")
	l.cluster.breakCarriers(errors.New("API server is away"))
	l.await(Reconnecting)
	if _, err := f.WriteString("while away"); err != nil {
		t.Fatal(err)
	}
	l.cluster.breakCarriers(nil)
	l.await(Ready)
	got := make([]byte, len("while away"))
	if _, err := io.ReadFull(f, got); err != nil || string(got) != "while away" {
		t.Fatalf("got %q, %v", got, err)
	}
	if st := s.Status(t.Context(), true); st.Redials == 0 || st.RoundTrip == 0 {
		t.Errorf("status %+v", st)
	}
}

func TestAgentGoneForGood(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	f, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, "before")
	l.cluster.mu.Lock()
	l.cluster.ended = true
	l.cluster.mu.Unlock()
	l.cluster.breakCarriers(errors.New("connection refused"))
	l.await(Lost)
	st := s.Status(t.Context(), true)
	if st.Problem == nil || st.Problem.Code != fault.SessionLost || st.Problem.Hint != "borrownet up --pod deploy/api -n shop" {
		t.Errorf("problem %+v", st.Problem)
	}
	if _, err := f.WriteString("x"); err == nil {
		if _, err = f.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("old flow: %v, want ECONNRESET", err)
		}
	}
	start := time.Now()
	if _, err := p.connect(orders, unix.SOCK_STREAM); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("new flow: %v, want ECONNREFUSED", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("connect took %v", d)
	}
	eventually(t, "the key of a dead agent to go", func() bool { return len(keyFiles(t, l.opener.Keys)) == 0 })
}

// TestWhoConnectsAtALossIsRefused: what resets open connections does not open those that are being opened.
func TestWhoConnectsAtALossIsRefused(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	l.cluster.breakCarriers(errors.New("connection refused"))
	l.await(Reconnecting)
	fd := p.socket(orders, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(orders)); err != unix.EINPROGRESS {
		t.Fatalf("connect: %v", err)
	}
	l.cluster.mu.Lock()
	l.cluster.ended = true
	l.cluster.mu.Unlock()
	l.await(Lost)
	if err := connected(fd, unix.EINTR); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect: %v, want ECONNREFUSED", err)
	}
}

// TestKeyOutlivesALostSession: who could not reach the agent for long takes it
// again instead of adding another.
func TestKeyOutlivesALostSession(t *testing.T) {
	l := newLab(t)
	s := l.start()
	needNamespace(t, s)
	s.helper.Close() // a loss that says nothing about the agent
	l.await(Lost)
	s.Close()
	if got := keyFiles(t, l.opener.Keys); len(got) != 1 {
		t.Fatalf("keys %q, want one", got)
	}
	again := l.start()
	if !again.Status(t.Context(), false).Agent.Reused || l.cluster.attached != 1 {
		t.Errorf("%d agents were attached, want 1", l.cluster.attached)
	}
}

func TestParkedAgentIsTakenAgain(t *testing.T) {
	l := newLab(t)
	s := l.start()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	again := l.start()
	if !again.Status(t.Context(), false).Agent.Reused || l.cluster.attached != 1 {
		t.Errorf("%d agents were attached, want 1", l.cluster.attached)
	}
	if err := again.StopAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	again.Close()
	if err := l.cluster.agent.Wait(30 * time.Second); err != nil {
		t.Errorf("the agent still runs: %v", err)
	}
	entries, err := os.ReadDir(l.opener.Dir.String())
	if err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestStartFails(t *testing.T) {
	refused := &kube.Error{Op: "attach to", Object: "pod shop/api-1", Reason: "policy says no", Hint: "ask them"}
	forbidden := &kube.Error{Op: "dial", Object: "pod shop/api-1", Reason: "you may not", Hint: "ask for create pods/portforward"}
	tests := []struct {
		name   string
		damage func(*fakeCluster)
		want   fault.Code
		hint   string
	}{
		{"attach", func(c *fakeCluster) { c.attach = refused }, fault.Agent, "ask them"},
		{"dial", func(c *fakeCluster) { c.cut = forbidden }, fault.Cluster, "ask for create pods/portforward"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			tt.damage(l.cluster)
			_, err := l.opening().Start(t.Context(), "api", l.observer())
			var f *fault.Error
			if !errors.As(err, &f) || f.Code != tt.want || f.Hint != tt.hint {
				t.Fatalf("got %#v", err)
			}
			entries, _ := filepath.Glob(l.opener.Dir.Path("*.sock"))
			if len(entries) != 0 {
				t.Errorf("left %q", entries)
			}
		})
	}
}

// TestKeyOutlivesAFailureThatLeftAnAgent: the next start must know the agent
// that this one left in the pod, and add no second one.
func TestKeyOutlivesAFailureThatLeftAnAgent(t *testing.T) {
	slow := &kube.Error{Op: "attach to", Object: "pod shop/api-1", Reason: "the image is slow"}
	for _, tt := range []struct {
		name string
		err  error
		keys int
	}{
		{"refused", slow, 0},
		{"placed", errors.Join(slow, kube.ErrPlaced), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.cluster.attach = tt.err
			if _, err := l.opening().Start(t.Context(), "api", l.observer()); err == nil {
				t.Fatal("no error")
			}
			if got := keyFiles(t, l.opener.Keys); len(got) != tt.keys {
				t.Errorf("keys %q, want %d", got, tt.keys)
			}
		})
	}
}

// TestAgentThatForgotItsClient: an agent gives the tunnel of a client up that is
// away for long. WireGuard alone would find out after 15 s of silence.
func TestAgentThatForgotItsClient(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	time.Sleep(5100 * time.Millisecond) // WireGuard begins no second handshake before
	l.cluster.breakCarriers(errors.New("the laptop sleeps"))
	l.await(Reconnecting)
	conn, err := l.cluster.agent.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := link.Prove(t.Context(), conn, link.Identity{Private: s.key.Private, Peer: s.peer, Session: [16]byte{1}}); err != nil {
		t.Fatal(err)
	}
	l.cluster.breakCarriers(nil)
	l.await(Ready)
	start := time.Now()
	f, err := p.connect(orders, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, "again")
	if d := time.Since(start); d > 12*time.Second {
		t.Errorf("the path works after %v", d)
	}
}

func TestReconnectingSaysWhy(t *testing.T) {
	l := newLab(t)
	s := l.start()
	l.cluster.breakCarriers(&kube.Error{Op: "connect to", Object: "pod shop/api-1", Reason: "your credentials are expired", Hint: "log in"})
	l.await(Reconnecting)
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		problem := s.Status(t.Context(), false).Problem
		if problem != nil && strings.Contains(problem.Reason, "your credentials are expired") && problem.Hint == "log in" {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("problem %+v", problem)
		}
	}
	l.cluster.breakCarriers(nil)
	l.await(Ready)
	if problem := s.Status(t.Context(), false).Problem; problem != nil {
		t.Errorf("ready with problem %v", problem)
	}
}

func TestStartIsInterrupted(t *testing.T) {
	l := newLab(t)
	l.cluster.cut = errors.New("not yet")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := l.opening().Start(ctx, "api", l.observer()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 30*time.Second { // the cluster never answers
		t.Errorf("took %v", d)
	}
}
