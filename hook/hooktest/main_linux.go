package hooktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Self is the path under which a test binary starts itself: it holds for any
// user, wherever the go command built the binary.
const Self = "/proc/self/exe"

const (
	phaseEnv   = "BORROWNET_HOOKTEST_PHASE"
	verbWithin = "__hooktest-tun" // the mount namespace in which /dev/net/tun is open to all

	unprivileged = 1001
)

// A Verb is another program inside the test binary, started as [Self, name, args...].
type Verb func(args []string) int

// Main is the body of TestMain. It runs the verb that the arguments name, or the
// tests: as a user once, as root three times, namely as root, then as an
// unprivileged user with and without an open /dev/net/tun, as far as root may.
func Main(m *testing.M, verbs map[string]Verb) {
	// A race build waits a second at the end of each process by default.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	os.Exit(run(m, verbs))
}

func run(m *testing.M, verbs map[string]Verb) int {
	if len(os.Args) > 1 {
		if v, ok := verbs[os.Args[1]]; ok {
			return v(os.Args[2:])
		}
		if os.Args[1] == verbWithin {
			return within(os.Args[2:])
		}
	}
	hear()
	if os.Getuid() != 0 || os.Getenv(phaseEnv) != "" {
		return m.Run()
	}
	args := portable(os.Args[1:])
	code := m.Run()
	if err := possible(drop()); err != nil {
		return max(code, skipPhase(fmt.Sprintf("become uid %d", unprivileged), err))
	}
	fmt.Printf("as uid %d, /dev/net/tun open to all\n", unprivileged)
	private := &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := possible(private); err != nil {
		code = max(code, skipPhase("make /dev/net/tun usable", err))
	} else {
		code = max(code, reexec(append([]string{verbWithin}, args...), private))
	}
	fmt.Printf("as uid %d, /dev/net/tun as it is\n", unprivileged)
	return max(code, reexec(args, drop()))
}

// hear makes what tests start hear the signals that this process was started to ignore, as nohup and a shell's & do:
// who has a handler leaves none of it to a program it executes.
func hear() {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// Again makes a call until no signal has interrupted it. The kernel itself does not make one again that is on a socket with
// a deadline (signal(7)), and the signals of Go's runtime come at any time.
func Again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// possible tries whether this process may start another with attr: root of a
// container lacks capabilities.
func possible(attr *syscall.SysProcAttr) error {
	cmd := exec.Command("/bin/sh", "-c", "exit 0")
	cmd.SysProcAttr = attr
	return cmd.Run()
}

// skipPhase says what is not run and why, and returns the exit code of that.
func skipPhase(what string, err error) int {
	fmt.Printf("skipped, cannot %s: %v\n", what, err)
	if required("netns") {
		return 1
	}
	return 0
}

// drop makes a child unprivileged.
func drop() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: unprivileged, Gid: unprivileged}}
}

// within puts a TUN node that anybody may open into this private mount namespace
// and runs the tests unprivileged.
func within(args []string) int {
	if err := openNode(); err != nil {
		return skipPhase("make /dev/net/tun usable", err)
	}
	return reexec(args, drop())
}

func openNode() error {
	const dir, node = "/dev/net", "/dev/net/tun"
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return &os.PathError{Op: "mknod", Path: node, Err: err}
	}
	return os.Chmod(node, 0o666)
}

// reexec runs the test binary again and returns its exit code.
func reexec(args []string, attr *syscall.SysProcAttr) int {
	// Ctrl-C reaches the child by the terminal. Ignoring the signal instead would
	// make every program below ignore it.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT)
	defer signal.Stop(interrupts)
	cmd := exec.Command(Self, args...)
	cmd.Env = append(os.Environ(), phaseEnv+"="+strconv.Itoa(unprivileged), "HOME=/tmp")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	}
	fmt.Println("run tests again:", err)
	return 1
}

// portable drops the flags that name files only root can write.
func portable(args []string) []string {
	var keep []string
	for _, a := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch {
		case name == "test.testlogfile", name == "test.outputdir", name == "test.gocoverdir",
			strings.HasSuffix(name, "profile"), name == "test.trace":
		default:
			keep = append(keep, a)
		}
	}
	return keep
}

// Unavailable skips the test because the machine lacks what it needs, or fails
// it when BORROWNET_REQUIRE names the need (a comma-separated list, or all).
func Unavailable(tb testing.TB, need string, reason any) {
	tb.Helper()
	if required(need) {
		tb.Fatalf("needs %s: %v", need, reason)
	}
	tb.Skipf("needs %s: %v", need, reason)
}

func required(need string) bool {
	for r := range strings.SplitSeq(os.Getenv("BORROWNET_REQUIRE"), ",") {
		if r = strings.TrimSpace(r); r == need || r == "all" {
			return true
		}
	}
	return false
}
