package nest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/switchboard"
)

func TestMain(m *testing.M) {
	verbs := map[string]hooktest.Verb{
		"__netns": netns.Main, "__exec": supervisor.ShimMain, "__outer": outerMain, "__inner": innerMain, "__cookie": cookieMain,
	}
	if len(os.Args) > 1 {
		if v, ok := verbs[os.Args[1]]; ok {
			os.Exit(v(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// outerMain is a run in the session whose place is the first argument.
func outerMain(args []string) int {
	place := parse(args[0])
	id, way, err := Enter(place)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	defer way.Close()
	tree := &supervisor.Tree{}
	outer, err := Listen(tree, nil)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	defer outer.Close()
	code, err := supervisor.Run(context.Background(), supervisor.Config{
		Shim: []string{hooktest.Self, "__exec"}, Argv: args[1:], Env: append(os.Environ(), outer.Env(), id.Mark),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Identity: id, Tree: tree,
	})
	if err != nil {
		fmt.Println("error", err)
	}
	return code
}

// innerMain is a run inside, in another session.
func innerMain(args []string) int {
	place := parse(args[0])
	inner, err := Join(os.Getenv(launch.HookVar), place)
	if err != nil {
		fmt.Println("error", err)
		return 125
	}
	code, err := supervisor.RunInside(context.Background(), supervisor.Config{
		Argv: args[1:], Env: append(os.Environ(), launch.SessionVar+"="+place.Session), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Println("error", err)
	}
	if err := inner.Leave(); err != nil {
		fmt.Println("error", err)
	}
	return code
}

func parse(text string) (p session.Place) {
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	return p
}

// cookieMain prints whose its sockets are, once its standard input has a line or
// ends. The argument is how it is called.
func cookieMain(args []string) int {
	bufio.NewReader(os.Stdin).ReadString('\n')
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println(args[0], unix.ErrnoName(err.(syscall.Errno)))
		return 0
	}
	defer unix.Close(fd)
	fmt.Println(args[0], cookie(fd))
	return 0
}

func cookie(fd int) string {
	v, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return err.Error()
	}
	return strconv.FormatUint(v, 10)
}

// place is a session with a namespace and a switchboard that knows no ports.
type place struct {
	session.Place
	cookie string
}

func (p place) text(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(p.Place)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func newPlace(t *testing.T, name, addr string) place {
	t.Helper()
	if err := supervisor.Probe(); err != nil {
		hooktest.Unavailable(t, "seccomp", err)
	}
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := place{Place: session.Place{
		Session: name, Hook: hook.Seccomp, Socket: filepath.Join(dir, "s"), Ports: filepath.Join(dir, "p"), Addrs: []netip.Addr{netip.MustParseAddr(addr)},
	}}
	helper, err := netns.Start(t.Context(), netns.Config{Exe: []string{hooktest.Self, "__netns"}, Socket: p.Socket, Addrs: p.Addrs})
	if err != nil {
		hooktest.Unavailable(t, "netns", err)
	}
	t.Cleanup(func() { helper.Close() })
	ln, err := net.Listen("unix", p.Ports)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&switchboard.Server{Listener: ln, Handler: noPorts{}}).Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	c, err := netns.Dial(p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p.cookie = cookie(fd)
	return p
}

type noPorts struct{}

func (noPorts) Publish(context.Context, netip.AddrPort, bool) error { return nil }
func (noPorts) Attend(ctx context.Context)                          { <-ctx.Done() }
func (noPorts) OpenTCP(context.Context, netip.AddrPort) (func(context.Context, *net.TCPConn), error) {
	return nil, unix.ENETUNREACH
}
func (noPorts) OpenUDP(context.Context, netip.AddrPort) (func(context.Context, *net.UDPConn), error) {
	return nil, unix.ENETUNREACH
}

// script runs a shell script in session api. $INNER is a run in session web, $COOKIE
// prints whose a process is.
func script(t *testing.T, api, web place, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, hooktest.Self, "__outer", api.text(t), "sh", "-c", text)
	exe := fmt.Sprintf("/proc/%d/exe", os.Getpid())
	cmd.Env = append(os.Environ(), "EXE="+exe, "WEB="+web.text(t))
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.NewReplacer(api.cookie, "api", web.cookie, "web").Replace(strings.TrimSpace(string(out)))
}

// TestSubtree: what an inner run starts is the other session's, however it is
// started; the rest stays what it was, at the same time and afterwards.
func TestSubtree(t *testing.T) {
	api, web := newPlace(t, "api", "198.51.100.7"), newPlace(t, "web", "198.51.100.8")
	got := script(t, api, web, `
"$EXE" __cookie before </dev/null
"$EXE" __inner "$WEB" sh -c '"$EXE" __cookie inside </dev/null; (setsid sh -c "sleep 0.2; \"$EXE\" __cookie orphan </dev/null" &); exit 3'
echo code $?
"$EXE" __inner "$WEB" sh -c '"$EXE" __inner "$WEB" "$EXE" __cookie twice </dev/null; "$EXE" __cookie once-more </dev/null'
"$EXE" __cookie after </dev/null
`)
	want := "before api\ninside web\norphan web\ncode 3\ntwice web\nonce-more web\nafter api"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestInnerKilled: what a killed inner run leaves behind gets no sockets: neither
// the outer session's nor the laptop's.
func TestInnerKilled(t *testing.T) {
	api, web := newPlace(t, "api", "198.51.100.7"), newPlace(t, "web", "198.51.100.8")
	got := script(t, api, web, `
d=$(mktemp -d); mkfifo $d/f
"$EXE" __inner "$WEB" sh -c '"$EXE" __cookie orphan <'$d'/f' &
inner=$!
exec 3>$d/f
kill -9 $inner; wait $inner 2>/dev/null
echo >&3; exec 3>&-
"$EXE" __cookie sibling </dev/null
rm -r $d
`)
	lines := strings.Split(got, "\n")
	if !strings.Contains(got, "orphan ENETDOWN") || !strings.Contains(got, "sibling api") || len(lines) != 2 {
		t.Errorf("got\n%s", got)
	}
}

// TestSessionGone: another session that is gone is an error.
func TestSessionGone(t *testing.T) {
	api, web := newPlace(t, "api", "198.51.100.7"), newPlace(t, "web", "198.51.100.8")
	web.Socket = "/no/such/socket"
	got := script(t, api, web, `"$EXE" __inner "$WEB" true; echo code $?`)
	if !strings.HasPrefix(got, "error the run around this one: ") || !strings.HasSuffix(got, "code 125") {
		t.Errorf("got %q", got)
	}
	if _, err := Join("@no-such-run", web.Place); err == nil {
		t.Error("joined nobody")
	}
}
