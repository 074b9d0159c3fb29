package supervisor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/view"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	hooktest.Main(m, map[string]hooktest.Verb{
		"__netns":  netns.Main,
		"__exec":   ShimMain,
		"__run":    runMain,
		"__twice":  twiceMain,
		"__app":    appMain,
		"__keeper": keeperMain,
	})
}

// patience is how long what takes milliseconds may take on a machine that is busy.
const patience = 30 * time.Second

// viewVar is the directory of a view that commands get.
const viewVar = "BORROWNET_TEST_VIEW"

// connectingVar is the path of a Unix socket whose use is told beforehand.
const connectingVar = "BORROWNET_TEST_CONNECTING"

// runMain is a small borrownet run: the helper's socket, then the command.
func runMain(args []string) int {
	sockets, err := netns.Dial(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return codeOurs
	}
	defer sockets.Close()
	cfg := Config{
		Shim:  []string{hooktest.Self, "__exec"},
		Argv:  args[1:],
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Identity: Identity{Sockets: sockets, Addrs: []netip.Addr{pod}}, AllowIOURing: os.Getenv("BORROWNET_TEST_IO_URING") != "",
	}
	if os.Getenv("BORROWNET_TEST_DEBUG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if path := os.Getenv(connectingVar); path != "" {
		cfg.Connecting = func(at string) func() {
			if at != path {
				return nil
			}
			return func() { fmt.Println("first", at) }
		}
	}
	if dir := os.Getenv(viewVar); dir != "" {
		cfg.View = view.View{Hostname: "in-a-view", Scratch: filepath.Join(dir, "scratch"), Binds: []view.Bind{
			{Source: filepath.Join(dir, "source"), Target: "/run/borrownet.test/view"}, {Source: filepath.Join(dir, "source"), Target: "/borrownet.test"},
		}}
	}
	code, err := Run(context.Background(), cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		var u *UnsupportedError
		if errors.As(err, &u) {
			fmt.Fprintln(os.Stderr, "unsupported")
		}
	}
	return code
}

// twiceMain runs commands in one process and prints what each left behind, then
// cancels one.
func twiceMain(args []string) int {
	sockets, err := netns.Dial(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return codeOurs
	}
	defer sockets.Close()
	cfg := Config{Shim: []string{hooktest.Self, "__exec"}, Identity: Identity{Sockets: sockets}}
	run := func(ctx context.Context, argv ...string) {
		cfg.Argv = argv
		code, err := Run(ctx, cfg)
		if cfg.Stdout != nil {
			cfg.Stdout.Close()
		}
		// A goroutine that has told its result may still be on its way out.
		for end := time.Now().Add(patience); runtime.NumGoroutine() > 2 && time.Now().Before(end); {
			runtime.Gosched()
		}
		fds, _ := openFDs()
		fmt.Println(code, err, fds, runtime.NumGoroutine())
	}
	run(context.Background(), app("send", "first")...)
	run(context.Background(), app("send", "second")...)
	run(context.Background(), "/no/such/file")
	run(context.Background(), args[1])
	r, w, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		r.Read(make([]byte, 1))
		r.Close()
		cancel()
	}()
	cfg.Stdout = w
	run(ctx, "sh", "-c", "setsid sleep 5 >/dev/null & echo; exec sleep 30")
	return 0
}

var (
	pod = netip.MustParseAddr("198.51.100.7")
	far = netip.MustParseAddr("192.0.2.9")
)

// session is a session namespace whose packets are collected.
type session struct {
	helper *netns.Helper
	path   string
	cookie string // SO_NETNS_COOKIE of its sockets

	mu   sync.Mutex
	cond *sync.Cond
	out  []string // source and payload of datagrams to far
}

func newSession(t testing.TB) *session {
	t.Helper()
	if err := Probe(); err != nil {
		hooktest.Unavailable(t, "seccomp", err)
	}
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &session{path: filepath.Join(dir, "s")}
	s.cond = sync.NewCond(&s.mu)
	s.helper, err = netns.Start(t.Context(), netns.Config{
		Exe: []string{hooktest.Self, "__netns"}, Socket: s.path, Addrs: []netip.Addr{pod},
	})
	if err != nil {
		hooktest.Unavailable(t, "netns", err)
	}
	collected := make(chan struct{})
	go func() { // ends with the helper
		defer close(collected)
		s.collect()
	}()
	t.Cleanup(func() { s.helper.Close(); <-collected })
	c, err := netns.Dial(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s.cookie = cookieOf(fd)
	return s
}

func cookieOf(fd int) string {
	v, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(v)
}

// collect keeps the datagrams that leave for far.
func (s *session) collect() {
	bufs := make([][]byte, s.helper.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65536)
	}
	sizes := make([]int, len(bufs))
	for {
		n, err := s.helper.Read(bufs, sizes, 0)
		if err != nil {
			return
		}
		for i := range n {
			b := bufs[i][:sizes[i]]
			if len(b) < 28 || b[0] != 0x45 || b[9] != 17 || netip.AddrFrom4([4]byte(b[16:20])) != far {
				continue
			}
			s.mu.Lock()
			s.out = append(s.out, netip.AddrFrom4([4]byte(b[12:16])).String()+" "+string(b[28:]))
			s.cond.Broadcast()
			s.mu.Unlock()
		}
	}
}

// sent waits for a datagram with the payload and the pod's source.
func (s *session) sent(t *testing.T, payload string) {
	t.Helper()
	want := pod.String() + " " + payload
	late := false
	timer := time.AfterFunc(patience, func() {
		s.mu.Lock()
		late = true
		s.cond.Broadcast()
		s.mu.Unlock()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for _, got := range s.out {
			if strings.TrimSpace(got) == want {
				return
			}
		}
		if late {
			t.Fatalf("no datagram %q left the namespace, only %q", want, s.out)
		}
		s.cond.Wait()
	}
}

// command is a run of argv in the session.
func (s *session) command(argv ...string) *exec.Cmd {
	cmd := exec.Command(hooktest.Self, append([]string{"__run", s.path}, argv...)...)
	cmd.WaitDelay = patience
	return cmd
}

// run runs argv to its end.
func (s *session) run(t testing.TB, argv ...string) (stdout, stderr string, code int) {
	t.Helper()
	return finish(t, s.command(argv...))
}

func finish(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), cmd.ProcessState.ExitCode()
}

// app is the argument vector of one of the programs in app_test.go. A shell may
// execute it, so the path names this process.
func app(name string, args ...string) []string {
	return append([]string{self(), "__app", name}, args...)
}

// selfVar is a copy of this binary: the link to it in /proc cannot be followed
// from another user namespace.
const selfVar = "BORROWNET_TEST_SELF"

func self() string { return cmp.Or(os.Getenv(selfVar), fmt.Sprintf("/proc/%d/exe", os.Getpid())) }
