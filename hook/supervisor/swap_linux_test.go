package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/hooktest"

	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/netns"
)

// started is a command under way: its output is read line by line.
type started struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (s *session) start(t *testing.T, argv ...string) *started {
	t.Helper()
	cmd := s.command(argv...)
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
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		timer.Stop()
		in.Close()
		cmd.Wait()
	})
	return &started{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
}

func (p *started) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		rest, _ := io.ReadAll(p.out)
		p.t.Fatalf("the program said %q%s, then %v", line, rest, err)
	}
	return strings.TrimSpace(line)
}

// greeting dials at from the laptop and returns what is said there.
func greeting(t *testing.T, at string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", at, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLoopbackListeners: what listens on the laptop's loopback is the laptop's,
// with every duplicate, option and epoll entry.
func TestLoopbackListeners(t *testing.T) {
	s := newSession(t)
	addrs := []string{"127.0.0.1:0", "127.0.0.9:0", "[::ffff:127.0.0.1]:0"}
	if hasLoopback6() {
		addrs = append(addrs, "[::1]:0")
	}
	for _, at := range addrs {
		t.Run(at, func(t *testing.T) {
			p := s.start(t, app("listener", at)...)
			f := strings.Fields(p.line())
			if f[0] != "listening" {
				t.Fatal(f)
			}
			if got, want := greeting(t, f[1]), "hello from the duplicate"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got, want := p.line(), "event 1 data deadbeefcafe0001 nodelay 1 reuse 1 nonblock true cloexec 1 0 mod <nil> del <nil>"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestManyLoopbackListeners: the session's kernel, which chooses the ports, gives none
// out that a listener has on the laptop.
func TestManyLoopbackListeners(t *testing.T) {
	s := newSession(t)
	got, want := "", "40 listen, 40 again"
	for range 3 { // another session on this machine may have one of the ports for a moment
		if got = s.start(t, app("listeners", "40")...).line(); got == want {
			return
		}
	}
	t.Errorf("got %q, want %q", got, want)
}

// appListeners listens on so many ports of the laptop's loopback at a time, and when
// those are closed, on each of them once more.
func appListeners(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	few := net.ListenConfig{Control: fewPorts}
	var all []net.Listener
	for i := range n {
		ln, err := few.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listener %d: %w", i, err)
		}
		all = append(all, ln)
	}
	again := 0
	for _, ln := range all {
		if err := ln.Close(); err != nil {
			return err
		}
		ln, err := net.Listen("tcp", ln.Addr().String())
		if err != nil {
			return fmt.Errorf("after %d: %w", again, err)
		}
		again++
		defer ln.Close()
	}
	fmt.Printf("%d listen, %d again\n", n, again)
	return nil
}

// fewPorts lets the kernel choose one of 128 ports (IP_LOCAL_PORT_RANGE, ip(7), Linux 6.3):
// one that is free by mistake is chosen soon, and other sessions have most of theirs elsewhere.
func fewPorts(_, _ string, c syscall.RawConn) error {
	const ipLocalPortRange = 51
	first := farend.FirstAutoPort
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, ipLocalPortRange, (first+127)<<16|first) // an older kernel takes any
	})
}

func hasLoopback6() bool {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	ln.Close()
	return true
}

// appListener listens as an event loop in C does: the descriptor is in epoll and
// duplicated before it listens.
func appListener(args []string) error {
	at := netip.MustParseAddrPort(args[0])
	domain := unix.AF_INET
	if at.Addr().Is6() {
		domain = unix.AF_INET6
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.Bind(fd, farend.Sockaddr(domain, at)),
	)
	if err != nil {
		return err
	}
	dup, err := unix.Dup(fd)
	if err != nil {
		return err
	}
	data := uint64(0xdeadbeefcafe0001)
	ev := unix.EpollEvent{Events: unix.EPOLLIN | 1<<31, Fd: int32(uint32(data)), Pad: int32(uint32(data >> 32))}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return err
	}
	before := farend.Name(fd)
	if err := unix.Listen(fd, 5); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if after := farend.Name(fd); after != before || farend.Name(dup) != before {
		return fmt.Errorf("was bound to %s, is to %s and %s", before, after, farend.Name(dup))
	}
	fmt.Println("listening", before)
	events := make([]unix.EpollEvent, 4)
	n := 0
	for n == 0 {
		if n, err = unix.EpollWait(ep, events, int(patience.Milliseconds())); err != nil && err != unix.EINTR {
			return err
		}
	}
	if err := greet(dup); err != nil {
		return err
	}
	get := func(level, name int) int { v, _ := unix.GetsockoptInt(fd, level, name); return v }
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	cloexec, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	dupCloexec, _ := unix.FcntlInt(uintptr(dup), unix.F_GETFD, 0)
	fmt.Printf("event %x data %x nodelay %d reuse %d nonblock %v cloexec %d %d mod %v del %v\n", events[0].Events,
		uint64(uint32(events[0].Fd))|uint64(uint32(events[0].Pad))<<32,
		get(unix.IPPROTO_TCP, unix.TCP_NODELAY), get(unix.SOL_SOCKET, unix.SO_REUSEADDR), flags&unix.O_NONBLOCK != 0, cloexec, dupCloexec,
		unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, fd, &ev), unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, fd, nil))
	return nil
}

// reusable binds to 127.0.0.1 as servers do, so that connections of earlier tests
// are not in the way.
func reusable(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
}

func greet(listener int) error {
	c, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	defer unix.Close(c)
	_, err = unix.Write(c, []byte("hello from the duplicate"))
	return err
}

// TestWorkersShareAListener: each worker listens on the socket that was bound
// before the fork, as uvicorn's do.
func TestWorkersShareAListener(t *testing.T) {
	s := newSession(t)
	p := s.start(t, app("workers")...)
	if got := p.line(); got != "worker <nil>" {
		t.Fatal(got)
	}
	if got := p.line(); got != "worker <nil>" {
		t.Fatal(got)
	}
	at := p.line()
	if got := greeting(t, at); got != "hello from the duplicate" {
		t.Errorf("got %q", got)
	}
	if got := p.line(); got != "one answered" {
		t.Error(got)
	}
}

// appWorkers binds and lets two children listen.
func appWorkers([]string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := reusable(fd); err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "bound")
	answered := make(chan error, 2)
	for range 2 {
		cmd := exec.Command("/proc/self/exe", "__app", "worker")
		cmd.ExtraFiles = []*os.File{file}
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		defer cmd.Process.Kill()
		r := bufio.NewReader(out)
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		fmt.Print(line)
		go func() {
			_, err := r.ReadString('\n')
			answered <- err
		}()
	}
	fmt.Println(farend.Name(fd))
	err = <-answered
	fmt.Println("one answered")
	return err
}

func appWorker([]string) error {
	const inherited = 3
	fmt.Println("worker", unix.Listen(inherited, 5))
	if err := greet(inherited); err != nil {
		return err
	}
	fmt.Println("answered")
	return nil
}

// TestPortOfTheKernelsChoice: a port 0 that became one on which the laptop still
// remembers closed connections is as good as any. SO_REUSEADDR stays set, so that what
// will be remembered of this listener is in nobody's way either.
func TestPortOfTheKernelsChoice(t *testing.T) {
	if farend.FirstAutoPort != netns.FirstAutoPort {
		t.Errorf("the namespace's ports begin at %d, this package thinks at %d", netns.FirstAutoPort, farend.FirstAutoPort)
	}
	s := newSession(t)
	at := remembered(t)
	if out, errs, _ := s.run(t, app("listenreuse", strconv.Itoa(int(at.Port())))...); out != "ok reuse 1" {
		t.Errorf("got %q %s", out, errs)
	}
}

// remembered is an address of the laptop in the namespace's range with a closed
// connection in TIME_WAIT.
func remembered(t *testing.T) netip.AddrPort {
	t.Helper()
	for port := uint16(65000); port < 65100; port++ {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
		ln, err := net.Listen("tcp", at.String())
		if err != nil {
			continue
		}
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		a, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		io.ReadAll(c)
		c.Close()
		ln.Close()
		return at
	}
	t.Fatal("no free port")
	return netip.AddrPort{}
}

// appListenReuse listens on a port of 127.0.0.1 and prints SO_REUSEADDR.
func appListenReuse(args []string) error {
	port, _ := strconv.Atoi(args[0])
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 5); err != nil {
		return err
	}
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	fmt.Println("ok reuse", v)
	return err
}

// TestListenErrors checks what listen(2) says of the laptop.
func TestListenErrors(t *testing.T) {
	s := newSession(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, errs, _ := s.run(t, app("listenat", ln.Addr().String(), "192.0.2.77:4000", pod.String()+":4001", "0.0.0.0:4002", "127.0.0.1:4002")...)
	want := strings.Join([]string{
		"EADDRINUSE",    // as it says natively from bind(2)
		"EADDRNOTAVAIL", // as natively from bind(2)
		"ok", "ok", "ok",
	}, "\n")
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("(-want +got)\n%s%s", diff, errs)
	}
}

// appListenAt listens at each address in turn.
func appListenAt(addrs []string) error {
	for _, a := range addrs {
		at := netip.MustParseAddrPort(a)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, farend.Sockaddr(unix.AF_INET, at)); err != nil {
			return fmt.Errorf("bind %s: %w", a, err)
		}
		if err := unix.Listen(fd, 5); err != nil {
			fmt.Println(errnoName(err))
		} else {
			fmt.Println("ok")
		}
		unix.Close(fd)
	}
	return nil
}

// TestLoopback6 connects to ::1: the laptop's, by TCP and UDP, and back to the
// session with the same socket.
func TestLoopback6(t *testing.T) {
	if !hasLoopback6() {
		t.Skip("needs ::1 on this machine")
	}
	s := newSession(t)
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "laptop")
			c.Close()
		}
	}()
	u, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() { // ends with u
		buf := make([]byte, 100)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo(buf[:n], from)
		}
	}()
	port := func(a net.Addr) string { _, p, _ := net.SplitHostPort(a.String()); return p }
	out, errs, code := s.run(t, app("loopback6", port(ln.Addr()), port(u.LocalAddr()))...)
	want := strings.Join([]string{
		"tcp laptop",
		"epoll 1 data 7",
		"closed ECONNREFUSED",
		"udp echo",
		"away and back true true",
		"elsewhere by sendto ENETUNREACH",
	}, "\n")
	if diff := cmp.Diff(want, out); diff != "" || code != 0 {
		t.Errorf("exit code %d (-want +got)\n%s%s", code, diff, errs)
	}
}

func appLoopback6(args []string) error {
	tcp, _ := strconv.Atoi(args[0])
	udp, _ := strconv.Atoi(args[1])
	one := [16]byte{15: 1}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return err
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: 7}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: tcp, Addr: one}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	buf := make([]byte, 100)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return err
	}
	fmt.Println("tcp", string(buf[:n]))
	events := make([]unix.EpollEvent, 4)
	wait := func() (err error) { n, err = unix.EpollWait(ep, events, int(patience.Milliseconds())); return err }
	if err := hooktest.Again(wait); err != nil {
		return err
	}
	fmt.Println("epoll", n, "data", events[0].Fd)
	closed, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	fmt.Println("closed", errnoName(unix.Connect(closed, &unix.SockaddrInet6{Port: 1, Addr: one})))

	d, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	here := cookieOf(d)
	if err := unix.Connect(d, &unix.SockaddrInet6{Port: udp, Addr: one}); err != nil {
		return fmt.Errorf("connect udp: %w", err)
	}
	if _, err := unix.Write(d, []byte("echo")); err != nil {
		return err
	}
	if n, err = unix.Read(d, buf); err != nil {
		return err
	}
	fmt.Println("udp", string(buf[:n]))
	away := cookieOf(d) != here
	elsewhere := unix.Sendto(d, []byte("x"), 0, &unix.SockaddrInet6{Port: 9, Addr: netip.MustParseAddr("2001:db8::9").As16()})
	// A mapped address of the session: the socket moves back.
	_ = unix.Connect(d, &unix.SockaddrInet6{Port: 4000, Addr: far.As16()})
	_ = unix.Connect(d, &unix.SockaddrInet6{Port: 4000, Addr: netip.MustParseAddr("::ffff:" + far.String()).As16()})
	fmt.Println("away and back", away, cookieOf(d) == here)
	fmt.Println("elsewhere by sendto", errnoName(elsewhere))
	return nil
}

func TestParseRegistrations(t *testing.T) {
	const info = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1064\n" +
		"tfd:        5 events:       1d data: ffffffffffffffff  pos:0 ino:61af sdev:7\n" +
		"tfd:       12 events: 80000005 data: deadbeefcafe0001  pos:0 ino:61b0 sdev:8\n" +
		"tfd:        x events:       1d data:                0  pos:0 ino:61b0 sdev:8\n"
	got := parseRegistrations([]byte(info), 3, 0x61b0)
	want := []registration{{epoll: 3, fd: 12, events: 0x80000005, data: 0xdeadbeefcafe0001}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(registration{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// BenchmarkListenSwap gives listen-ns, the median of a listen(2) whose socket
// becomes the laptop's, and native-listen-ns.
func BenchmarkListenSwap(b *testing.B) {
	s := newSession(b)
	argv := app("listentime", strconv.Itoa(max(b.N, 50)))
	read := func(out, errs string, code int) (ns float64) {
		if _, err := fmt.Sscan(out, &ns); err != nil || code != 0 {
			b.Fatalf("exit code %d: %s%s", code, out, errs)
		}
		return
	}
	moved := read(s.run(b, argv...))
	native := read(finish(b, exec.Command(argv[0], argv[1:]...)))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(moved, "listen-ns")
	b.ReportMetric(native, "native-listen-ns")
}

// appListenTime prints the median time of listen(2) on 127.0.0.1, with 100 other
// descriptors open.
func appListenTime(args []string) error {
	n, _ := strconv.Atoi(args[0])
	for range 100 {
		if _, err := unix.Dup(0); err != nil {
			return err
		}
	}
	took := make([]time.Duration, n)
	for i := range took {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := reusable(fd); err != nil {
			return err
		}
		begin := time.Now()
		err = unix.Listen(fd, 1)
		took[i] = time.Since(begin)
		if err != nil {
			return fmt.Errorf("listen on %s, number %d: %w", farend.Name(fd), i, err)
		}
		unix.Close(fd)
	}
	slices.Sort(took)
	fmt.Println(took[n/2].Nanoseconds())
	return nil
}
