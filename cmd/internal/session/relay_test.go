package session

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/switchboard"
)

// Hosts of the world that only the relay's tests have.
var (
	web     = netip.MustParseAddrPort("198.51.100.80:80")
	late    = netip.MustParseAddrPort("198.51.100.81:80") // answers after lateBy
	closed  = netip.AddrPortFrom(late.Addr(), 81)         // refuses after lateBy
	gone    = netip.MustParseAddrPort("198.51.100.82:80") // is reported unreachable after lateBy
	silent  = netip.MustParseAddrPort("198.51.100.83:80")
	echoing = netip.MustParseAddrPort("198.51.100.84:7") // UDP
	other   = netip.MustParseAddrPort("198.51.100.85:7") // UDP
)

const lateBy = 400 * time.Millisecond

// runMain is a small borrownet run on the relay rung.
func runMain(args []string) int {
	far, err := switchboard.Dial(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 125
	}
	cfg := supervisor.Config{
		Shim: []string{hooktest.Self, "__exec"}, Argv: args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Relay: far,
	}
	if os.Getenv("BORROWNET_TEST_DEBUG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	code, err := supervisor.Run(context.Background(), cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return code
}

// relayed is a session whose programs are relayed.
type relayed struct {
	t       *testing.T
	session *Session
}

// startRelayed starts one: by force here, by itself in a container.
func startRelayed(t *testing.T) *relayed {
	t.Helper()
	if err := supervisor.Probe(); err != nil {
		hooktest.Unavailable(t, "seccomp", err)
	}
	l := newRelayLab(t)
	opening := l.opening()
	if !hooktest.Confined() {
		opening.req.Hook = hook.Relay
	}
	s, err := opening.Start(t.Context(), "api", l.observer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if place := s.Place(); place.Hook != hook.Relay {
		t.Fatalf("hook %s, want relay", place.Hook)
	}
	return &relayed{t, s}
}

// newRelayLab is a lab with the hosts that programs of the tests call.
func newRelayLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	w := l.cluster.world
	w.TCP[web], w.TCP[late] = serveHTTP, serveHTTP
	reply := func(p []byte) []byte { return append([]byte("re: "), p...) }
	w.UDP[echoing], w.UDP[other] = reply, reply
	w.UDP[resolver] = answerNames
	w.Delay = map[netip.Addr]time.Duration{late.Addr(): lateBy, gone.Addr(): lateBy}
	w.Unreachable[gone.Addr()] = syscall.EHOSTUNREACH
	w.Silent = map[netip.Addr]bool{silent.Addr(): true}
	return l
}

// answerNames is answerDNS for the names of the relay's tests.
func answerNames(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) == 0 {
		return nil
	}
	q := m.Questions[0]
	if q.Name.String() != "web.shop.svc.cluster.local." {
		return answerDNS(query)
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	if q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5},
			Body:   &dnsmessage.AResource{A: web.Addr().As4()},
		}}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

const page = "this is web"

func serveHTTP(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	var got []byte
	for !bytes.Contains(got, []byte("\r\n\r\n")) {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		got = append(got, buf[:n]...)
	}
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(page), page)
}

// run runs argv in the session to its end.
func (r *relayed) run(argv ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	cmd := r.command(argv...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), cmd.ProcessState.ExitCode()
}

func (r *relayed) command(argv ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	r.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, hooktest.Self, append([]string{"__run", r.session.Place().Socket}, argv...)...)
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

func relayApp(name string, args ...string) []string {
	return append([]string{hooktest.Self, "__app", name}, args...)
}

// want runs an app of this binary and compares its output.
func (r *relayed) want(want string, argv ...string) {
	r.t.Helper()
	out, errs, code := r.run(argv...)
	if out != want || code != 0 {
		r.t.Errorf("%s: exit code %d, got\n%s\nwant\n%s\nstderr: %s", strings.Join(argv, " "), code, out, want, errs)
	}
}

// interpreter finds a program that this user may run.
func interpreter(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/bin/" + name, "/usr/local/bin/" + name} {
		full, err := exec.LookPath(path)
		if err == nil && exec.Command(full, "--version").Run() == nil {
			return full
		}
	}
	hooktest.Unavailable(t, name, "it is not here, or this user may not run it")
	return ""
}

// TestRelayConfined runs the tests of the relay where the rung is made for: no
// user namespaces, no capabilities.
func TestRelayConfined(t *testing.T) {
	if hooktest.Confined() {
		return
	}
	for name, uid := range map[string]int{"root": 0, "user": 1001} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hooktest.Confine(t, hooktest.Docker, uid, "^TestRelay")
		})
	}
}

const pythonAsync = `
import asyncio, sys
async def get(i):
    r, w = await asyncio.open_connection('web', 80)
    w.write(b'GET / HTTP/1.0\r\n\r\n')
    body = (await r.read()).split(b'\r\n\r\n')[1]
    w.close()
    return body.decode()
async def main():
    got = await asyncio.gather(*[get(i) for i in range(40)])
    print(set(got))
    try:
        await asyncio.open_connection('orders', 81)
    except OSError as e:
        print(e.errno if e.errno else e)
asyncio.run(main())
`

const nodeGet = `
const http = require('http'), net = require('net'), dns = require('dns');
http.get('http://web/', r => { let b=''; r.on('data', d => b += d); r.on('end', () => {
  net.connect(81, 'orders').on('error', e => {
    const resolver = new dns.Resolver();
    resolver.resolve4('web', (err, a) => console.log(b, e.code, err ? err.code : a.join()));
  });
});});
`

const javaGet = `class Main{public static void main(String[] a)throws Exception{` +
	`var r=java.net.http.HttpClient.newHttpClient().send(java.net.http.HttpRequest.newBuilder(java.net.URI.create("http://web/")).build(),` +
	`java.net.http.HttpResponse.BodyHandlers.ofString());System.out.println(r.body());}}`

func TestRelayPrograms(t *testing.T) {
	r := startRelayed(t)
	t.Run("go", func(t *testing.T) { (&relayed{t, r.session}).want(page, relayApp("get", "http://web/")...) })
	for _, p := range dynamicPrograms(t) {
		t.Run(p.name, func(t *testing.T) { (&relayed{t, r.session}).want(p.want, p.argv(t)...) })
	}
}

// netProgram is a program that calls web, and what it prints.
type netProgram struct {
	name, need string
	args       []string
	want       string
}

func (p *netProgram) argv(t *testing.T) []string {
	return append([]string{interpreter(t, p.need)}, p.args...)
}

// dynamicPrograms are those of the runtimes that are dynamically linked.
func dynamicPrograms(t *testing.T) []netProgram {
	javaFile := filepath.Join(t.TempDir(), "Main.java")
	if err := os.WriteFile(javaFile, []byte(javaGet), 0o644); err != nil {
		t.Fatal(err)
	}
	return []netProgram{
		{"curl", "curl", []string{"-sS", "http://web/"}, page},
		{"curl-full-name", "curl", []string{"-sS", "http://web.shop.svc.cluster.local/"}, page},
		{"urllib", "python3", []string{"-c", "import urllib.request as u;print(u.urlopen('http://web/').read().decode())"}, page},
		{"asyncio", "python3", []string{"-c", pythonAsync}, "{'" + page + "'}\n111"},
		{"node", "node", []string{"-e", nodeGet}, page + " ECONNREFUSED " + web.Addr().String()},
		{"java", "java", []string{"-XX:TieredStopAtLevel=1", javaFile}, page},
		{"bash", "bash", []string{"-c", `exec 3<>/dev/tcp/web/80; printf 'GET / HTTP/1.0\r\n\r\n' >&3; tail -1 <&3`}, page},
	}
}

// TestRelayMusl runs a static program of another C library, whose resolver does
// not connect its sockets.
func TestRelayMusl(t *testing.T) {
	cc, err := exec.LookPath("musl-gcc")
	if err != nil {
		hooktest.Unavailable(t, "musl", err)
	}
	prog := filepath.Join(t.TempDir(), "resolve")
	build := exec.Command(cc, "-static", "-o", prog, "-x", "c", "-")
	build.Stdin = strings.NewReader(`
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(void) {
	struct addrinfo *a, h = { .ai_socktype = SOCK_STREAM };
	int e = getaddrinfo("web", "80", &h, &a);
	if (e) { puts(gai_strerror(e)); return 1; }
	puts(inet_ntoa(((struct sockaddr_in *)a->ai_addr)->sin_addr));
}`)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	startRelayed(t).want(web.Addr().String(), prog)
}

//go:embed testdata/compat.c
var compatSource []byte

// TestRelayCompat runs a program that calls the kernel by its 32-bit convention.
func TestRelayCompat(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the program is for amd64")
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		hooktest.Unavailable(t, "cc", err)
	}
	prog := filepath.Join(t.TempDir(), "compat")
	build := exec.Command(cc, "-O1", "-nostdlib", "-static", "-no-pie", "-fno-stack-protector", "-o", prog, "-x", "c", "-")
	build.Stdin = bytes.NewReader(compatSource)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := exec.Command(prog, "probe").Run(); err != nil {
		hooktest.Unavailable(t, "ia32", err)
	}
	startRelayed(t).want("hello hello", prog)
}

// TestRelayErrno checks what connect(2) says, of blocking and of non-blocking
// sockets, also where the answer takes longer than a program should stand still.
func TestRelayErrno(t *testing.T) {
	r := startRelayed(t)
	r.want(strings.Join([]string{
		"orders: ok peer " + orders.String(),
		"refused: ECONNREFUSED",
		"unreachable: EHOSTUNREACH",
		"no-ipv6-route: ECONNREFUSED",
		"control: EHOSTUNREACH",
		"multicast: ENETUNREACH",
		"late: ok peer " + late.String(),
		"late-refused: ECONNREFUSED",
		"late-unreachable: EHOSTUNREACH",
		"nonblocking orders: ok peer " + orders.String(),
		"nonblocking refused: ECONNREFUSED",
		"nonblocking late: ok peer " + late.String(),
		"nonblocking late-refused: ECONNREFUSED",
		"nonblocking late-unreachable: ETIMEDOUT",
		"nonblocking silent: not connected",
		"again: EISCONN",
		"raw: EPERM", "ping: EACCES", "packet: EAFNOSUPPORT", "sctp: EPROTONOSUPPORT", "fastopen: ENOTSUP", "io_uring: EPERM",
	}, "\n"), relayApp("errno")...)
}

func TestRelayDatagrams(t *testing.T) {
	r := startRelayed(t)
	var lines []string
	for _, how := range []string{"connected", "sendto", "sendmsg", "ipv6-socket"} {
		lines = append(lines, how+": re: one from "+echoing.String(), how+": re: two from "+other.String())
	}
	lines = append(lines, "local: hello from 127.0.0.1", "name: "+web.Addr().String())
	r.want(strings.Join(lines, "\n"), relayApp("datagrams")...)
}

func TestRelayManyConnections(t *testing.T) {
	r := startRelayed(t)
	r.want("200 of 200", relayApp("many", "200")...)
}

// TestRelayHalfClose checks that the end of one direction arrives as such.
func TestRelayHalfClose(t *testing.T) {
	r := startRelayed(t)
	r.want("1048576 bytes back", relayApp("bulk")...)
}

// TestRelayListener checks that listeners are the laptop's own, both ways, and
// that a port is free as soon as the program has closed its socket.
func TestRelayListener(t *testing.T) {
	r := startRelayed(t)
	cmd := r.command(relayApp("listen")...)
	stdin, stdout := pipes(t, cmd)
	defer cmd.Wait()
	defer stdin.Close()
	var addr string
	if _, err := fmt.Fscanln(stdout, &addr); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "hello" {
		t.Errorf("listener said %q, %v", got, err)
	}

	r.want("bound again", relayApp("freeport")...)
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
			io.WriteString(c, page)
			c.Close()
		}
	}()
	r.want(page, relayApp("read", ln.Addr().String())...)
}

// TestRelayNothingLeaks connects to addresses of this machine that are not
// loopback: without the session they would answer.
func TestRelayNothingLeaks(t *testing.T) {
	r := startRelayed(t)
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	u, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		tried++
		dst := netip.AddrPortFrom(p.Addr(), uint16(ln.Addr().(*net.TCPAddr).Port)).String()
		if c, err := net.Dial("tcp", dst); err != nil {
			t.Errorf("the test itself does not reach %s: %v", dst, err)
		} else {
			c.Close()
		}
		out, errs, _ := r.run(relayApp("read", dst)...)
		if !strings.Contains(out, "refused") {
			t.Errorf("%s: %q %q", dst, out, errs)
		}
		out, errs, _ = r.run(relayApp("shout", netip.AddrPortFrom(p.Addr(), uint16(u.LocalAddr().(*net.UDPAddr).Port)).String())...)
		if out != "sent" {
			t.Errorf("datagrams to %s: %q %q", p.Addr(), out, errs)
		}
	}
	if tried == 0 {
		hooktest.Unavailable(t, "interface", "this machine has loopback only")
	}
	u.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, from, err := u.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes came from %v", n, from)
	}
}

// TestRelayLost checks what a program hears once its session has ended.
func TestRelayLost(t *testing.T) {
	r := startRelayed(t)
	cmd := r.command(relayApp("lost")...)
	stdin, stdout := pipes(t, cmd)
	var word string
	if _, err := fmt.Fscanln(stdout, &word); err != nil || word != "connected" {
		t.Fatalf("%q, %v", word, err)
	}
	r.session.Close()
	stdin.Close()
	out, err := io.ReadAll(stdout)
	if got := strings.TrimSpace(string(out)); err != nil || got != "open ECONNRESET new ENETUNREACH datagram ENETUNREACH" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// pipes starts cmd with pipes.
func pipes(t *testing.T, cmd *exec.Cmd) (io.WriteCloser, io.Reader) {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return stdin, stdout
}

// TestRelayLeavesNothing checks the supervisor's descriptors, and those of the
// session, after many sockets of every kind.
func TestRelayLeavesNothing(t *testing.T) {
	r := startRelayed(t)
	cmd := r.command(relayApp("churn")...)
	stdin, stdout := pipes(t, cmd)
	defer cmd.Wait()
	defer stdin.Close()
	var ready string
	if _, err := fmt.Fscanln(stdout, &ready); err != nil {
		t.Fatal(err)
	}
	// The program lives on with everything closed.
	limit := time.Now().Add(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ents, err := os.ReadDir("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		if len(ents) <= 12 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d descriptors stay open", len(ents))
		}
		<-tick.C
	}
}

// TestRelayCost prints what a connect costs: over the relay, and natively.
func TestRelayCost(t *testing.T) {
	r := startRelayed(t)
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
			c.Close()
		}
	}()
	out, errs, code := r.run(relayApp("cost", orders.String(), ln.Addr().String())...)
	if code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	native, err := exec.Command(hooktest.Self, "__app", "cost", ln.Addr().String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cost: %s; without the hook: %s", strings.ReplaceAll(out, "\n", "; "), strings.ReplaceAll(strings.TrimSpace(string(native)), "\n", "; "))
}
