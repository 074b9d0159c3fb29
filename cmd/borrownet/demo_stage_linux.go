package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/demo"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

const (
	// sceneTimeout bounds one command of the demo.
	sceneTimeout = time.Minute
	// leaveTimeout bounds the end of what the demo has started: less than a second, and longer on a machine that is busy.
	leaveTimeout = 30 * time.Second
	// maxSaid bounds what is kept of a command's output.
	maxSaid = 1 << 20
)

// stage is what the demo happens in: a runtime directory, the world that is
// served there, and a PATH on which this very program is called borrownet. It
// adopts what its commands leave behind, so that it knows when nothing is left.
type stage struct {
	own    bool   // the runtime directory is in base
	base   string // temporary directory, removed at the end; "" unless own
	path   string // a directory of this program, for PATH
	dir    *rundir.Dir
	env    []string // of commands
	world  *demo.World
	server *demo.Server
	once   sync.Once
	err    error // of strike
}

// newStage makes a stage. One that is to stay uses the runtime directory that
// commands in other terminals use; else it is a directory of its own, which
// keeps it apart from the person's sessions.
func newStage(keep bool) (*stage, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("adopt the demo's processes: %w", os.NewSyscallError("prctl", err))
	}
	st := &stage{}
	if keep {
		dir, err := rundir.Open()
		if err == nil && demo.Running(dir) {
			return nil, demo.AlreadyRunning()
		}
		st.dir = dir // nil if it cannot be used
	}
	var err error
	if st.own = st.dir == nil; st.own {
		if st.base, err = makeBase(); err != nil {
			return nil, err
		}
		if st.dir, err = rundir.At(filepath.Join(st.base, "borrownet")); err != nil {
			return nil, errors.Join(err, os.RemoveAll(st.base))
		}
	}
	st.path = st.dir.Path(demo.ProgramDir)
	if err := st.callable(); err != nil {
		return nil, errors.Join(err, st.remove())
	}
	st.env = append(os.Environ(), "PATH="+st.path+":"+os.Getenv("PATH"))
	if st.own {
		st.env = append(st.env, "XDG_RUNTIME_DIR="+st.base)
	}
	return st, nil
}

// remove removes the stage's files.
func (st *stage) remove() error {
	err := os.RemoveAll(st.path)
	st.dir.Remove()
	if !st.own {
		return err
	}
	return errors.Join(err, emptied(st.dir.String()), os.RemoveAll(st.base))
}

// makeBase makes a directory for a while, where that is possible. Its name is
// short: paths of sockets are bounded.
func makeBase() (string, error) {
	var errs []error
	for _, where := range []string{os.TempDir(), "/tmp", "/dev/shm", "/var/tmp", "."} {
		where, err := filepath.Abs(where)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(where) > 50 {
			errs = append(errs, fmt.Errorf("%s: too long for a socket's address", where))
			continue
		}
		base, err := os.MkdirTemp(where, "bndemo-")
		if err == nil {
			return base, nil
		}
		errs = append(errs, err)
	}
	return "", &fault.Error{Code: fault.Laptop, Op: "make a directory for the demo", Reason: strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "),
		Hint: "set TMPDIR to a directory that you may write to", Err: errors.Join(errs...)}
}

// callable makes this program be borrownet on a PATH.
func (st *stage) callable() error {
	// One that was killed may have left it.
	if err := errors.Join(os.RemoveAll(st.path), os.Mkdir(st.path, 0o700)); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return os.Symlink(self, filepath.Join(st.path, "borrownet"))
}

// open makes the world and serves it.
func (st *stage) open(version string, log *slog.Logger) error {
	var err error
	if st.world, err = demo.Start(demo.Config{Version: version, Logger: log}); err != nil {
		return err
	}
	st.server, err = st.world.Serve(st.dir)
	return err
}

// play runs a command and returns what it said and its exit code.
func (st *stage) play(ctx context.Context, argv []string, out io.Writer) (said string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, sceneTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, selfPath(), argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = st.env
	ear := &ear{out: out}
	cmd.Stdout, cmd.Stderr = ear, ear
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = leaveTimeout
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		return ear.said.String(), max(exit.ExitCode(), 1), nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it did not end in %v", sceneTimeout)
	}
	return ear.said.String(), 0, err
}

// ear passes on and keeps what a command says.
type ear struct {
	out  io.Writer
	said bytes.Buffer
}

func (e *ear) Write(b []byte) (int, error) {
	e.said.Write(b[:min(len(b), maxSaid-e.said.Len())])
	return e.out.Write(b)
}

// exports are the lines that make another terminal meet this stage.
func (st *stage) exports() []string {
	var lines []string
	if found, err := exec.LookPath("borrownet"); err != nil || !sameFile(found, filepath.Join(st.path, "borrownet")) {
		lines = append(lines, "export PATH="+st.path+":$PATH")
	}
	if st.own {
		lines = append(lines, "export XDG_RUNTIME_DIR="+st.base)
	}
	return lines
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// strike ends and removes everything of the stage. It says what would not go.
func (st *stage) strike() error {
	st.once.Do(func() { st.err = st.strikeOnce() })
	return st.err
}

func (st *stage) strikeOnce() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	client := daemon.NewClient(daemon.ClientConfig{Dir: st.dir, Keep: keptFile})
	errs := []error{endSessions(ctx, client)}
	if st.server != nil {
		errs = append(errs, st.server.Close())
	}
	if st.world != nil {
		keys := session.NewKeys(st.dir)
		for _, t := range st.world.Targets() {
			errs = append(errs, keys.Drop(t))
		}
		errs = append(errs, st.world.Close())
	}
	// A daemon that has other sessions is not the demo's any more.
	spared := 0
	if h, err := client.Hello(ctx); err == nil && !st.own {
		spared = h.PID
	}
	return errors.Join(append(errs, leave(ctx, spared), st.remove())...)
}

// endSessions ends the sessions on the world, and their agents.
func endSessions(ctx context.Context, client *daemon.Client) error {
	list, err := client.List(ctx, false)
	if errors.Is(err, daemon.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range list {
		if s.Target.Context != demo.Context {
			continue
		}
		if _, err := client.Down(ctx, s.Session, true); err != nil && !errors.Is(err, daemon.ErrNotRunning) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A child is a process that the demo has started or adopted.
type child struct {
	pid  int
	name string
}

// leave waits until no child is left but the spared one, and kills what does
// not end.
func leave(ctx context.Context, spared int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := children(spared)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return kill(left)
		}
	}
}

// kill ends children that do not end by themselves, and says which.
func kill(left []child) error {
	var names []string
	for _, c := range left {
		names = append(names, fmt.Sprintf("%s (%d)", c.name, c.pid))
		_ = unix.Kill(c.pid, unix.SIGKILL) // it may have ended just now
	}
	return &fault.Error{Code: fault.Laptop, Op: "end the demo's processes", Reason: "these had to be killed: " + strings.Join(names, ", "), Hint: "borrownet demo -v"}
}

// children collects the children that have ended and returns those that run.
func children(spared int) ([]child, error) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR), pid > 0:
			continue
		case errors.Is(err, unix.ECHILD):
			return nil, nil
		case err != nil:
			return nil, os.NewSyscallError("wait4", err)
		}
		break // some run
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var left []child
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if pid, name, parent := parseStat(string(text)); parent == os.Getpid() && pid != spared {
			left = append(left, child{pid, name})
		}
	}
	return left, nil
}

// parseStat reads process, name and parent of a line of proc_pid_stat(5).
func parseStat(line string) (pid int, name string, parent int) {
	head, rest, _ := strings.Cut(line, " (")
	pid, _ = strconv.Atoi(head)
	i := strings.LastIndex(rest, ") ")
	if i < 0 {
		return pid, "", 0
	}
	if fields := strings.Fields(rest[i+2:]); len(fields) > 1 {
		parent, _ = strconv.Atoi(fields[1])
	}
	return pid, rest[:i], parent
}

// emptied reports what is left in the demo's own runtime directory.
func emptied(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is gone, as it should be
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), rundir.LibraryPrefix) { // its programs have ended
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &fault.Error{Code: fault.Laptop, Op: "end the demo", Reason: "these files were left, and removed: " + strings.Join(names, ", ")}
}
