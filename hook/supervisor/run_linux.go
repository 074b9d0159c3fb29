package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/hook/view"
)

// killDelay is what the command gets to end by itself after ctx is done.
const killDelay = 10 * time.Second

// Sockets makes the sockets that programs get. It is used from one goroutine at
// a time and must answer within seconds: a program waits.
type Sockets interface {
	// Socket is socket(2); the error wraps the errno the program is to see.
	Socket(domain, typ, proto int) (fd int, err error)
}

// Ports makes what programs listen on reachable from the laptop. It is used
// concurrently.
type Ports interface {
	// Publish opens the port of a listener of the session on the laptop's
	// loopback. The error wraps the errno that listen(2) is to give for
	// EADDRINUSE; after any other the program listens all the same.
	Publish(ctx context.Context, at netip.AddrPort, v6only bool) error
}

// Config says what to run.
type Config struct {
	// Shim is the argument vector that ends in ShimMain, for example
	// [self, "__exec"]. It is required.
	Shim []string
	// Argv is the command. Argv[0] is looked up in PATH of Env. It is required.
	Argv []string
	// Env is the command's environment, nil means this process's.
	Env []string
	// Dir is the command's working directory, "" means this process's.
	Dir string
	// Stdin, Stdout and Stderr are the command's, nil means /dev/null. Other
	// descriptors that this process inherited pass on under their numbers.
	Stdin, Stdout, Stderr *os.File
	// Identity says whose sockets trapped calls get, for the seccomp rung.
	Identity
	// Tree may be nil. It names parts of the tree that have another identity.
	Tree *Tree
	// AllowIOURing lets the command use io_uring on the seccomp rung. Sockets that
	// it makes by IORING_OP_SOCKET are the laptop's own then.
	AllowIOURing bool
	// Connecting may be nil. It is told the path of each Unix socket that a program
	// is about to connect to, and returns what comes first, or nil; the program waits
	// for that. Both may be called concurrently. It is for the rungs with a listener.
	Connecting func(path string) (first func())
	// Relay carries the flows of programs, for the relay rung, where sockets are
	// the laptop's own.
	Relay *switchboard.Client
	// View is what the command sees different from this machine.
	View view.View
	// Unhooked says that the command sees to its sockets itself: it gets no filter,
	// and nothing but itself is waited for. One of Sockets, Relay and Unhooked is
	// required.
	Unhooked bool
	// Wrapper is put before the command: a program that executes the file that
	// comes next with the argument vector after it. It is for Unhooked only.
	Wrapper []string
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	switch {
	case len(c.Shim) == 0 && !c.Unhooked:
		return errors.New("supervisor: no shim")
	case len(c.Argv) == 0:
		return errors.New("supervisor: no command")
	case c.AllowIOURing && c.Relay != nil:
		return errors.New("supervisor: io_uring would go past the relay")
	}
	ways := 0
	for _, way := range []bool{c.Sockets != nil, c.Relay != nil, c.Unhooked} {
		if way {
			ways++
		}
	}
	if ways != 1 {
		return errors.New("supervisor: not one of sockets, relay and unhooked")
	}
	return nil
}

// Run runs the command and returns its exit code, 128+n if signal n ended it.
//
// It waits for the command and then for every process the command left behind,
// because their socket calls are answered here; SIGINT, SIGTERM or SIGHUP ends
// that second wait. The command is in this process's own session, process group
// and terminal. Signals that only this process gets are passed on to it. When ctx
// is done the command gets SIGTERM, and after ten seconds SIGKILL.
//
// An error means that the failure is ours (exit code 125, an *UnsupportedError
// where seccomp cannot be used, a *ViewError) or that the command could not be executed (a
// *CommandError, exit code 126 or 127).
func Run(ctx context.Context, cfg Config) (exitCode int, err error) {
	if err := cfg.validate(); err != nil {
		return codeOurs, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	path, err := lookPath(cfg.Argv[0], cfg.Dir, cfg.Env)
	if err != nil {
		return failed(err)
	}
	if full := within(cfg.Dir, path); !cfg.Unhooked && privileged(full) && !mayFilter() {
		cfg.Logger.Warn("set-user-id and file capabilities have no effect under borrownet", "path", full)
	}
	// Orphans of the command become ours, so that their memory may be read
	// (Yama) and their end is seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return codeOurs, os.NewSyscallError("prctl PR_SET_CHILD_SUBREAPER", err)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, handled()...)
	defer signal.Stop(signals)
	if !signal.Ignored(unix.SIGPIPE) {
		// A warning to a terminal or pipe that is gone must not end this process,
		// and with it every later socket of the command. The command itself gets
		// the signal's default back at execve.
		pipe := make(chan os.Signal, 1)
		signal.Notify(pipe, unix.SIGPIPE)
		defer signal.Stop(pipe)
	}

	begin := start
	if cfg.Unhooked {
		begin = startUnhooked
	}
	c, err := begin(ctx, cfg, path)
	if err != nil {
		return failed(err)
	}
	code := c.wait(ctx, signals)
	if err := c.end(); err != nil {
		return failed(err)
	}
	return code, nil
}

// failed gives an error its exit code.
func failed(err error) (int, error) {
	var ce *CommandError
	if errors.As(err, &ce) {
		return ce.Code, err
	}
	return codeOurs, err
}

// handled lists the signals that Run takes. One that was ignored when this
// process started, as nohup(1) has it, stays ignored, for the command too.
func handled() []os.Signal {
	sigs := []os.Signal{unix.SIGCHLD}
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(s) {
			sigs = append(sigs, s)
		}
	}
	return sigs
}

// command is the running command with its supervisor.
type command struct {
	pid    int
	name   string
	logger *slog.Logger
	sup    *supervisor // nil if unhooked, or if an outer one answers
	loop   chan error  // result of sup.run
	exec   chan error  // result of execve: nil or a *CommandError

	exited   bool // the command itself was reaped
	status   unix.WaitStatus
	loopDone bool
}

// wait answers and reaps until the whole tree has ended.
func (c *command) wait(ctx context.Context, signals <-chan os.Signal) (exitCode int) {
	done := ctx.Done()
	var kill <-chan time.Time
	for {
		if none := c.reap(); none && c.sup == nil {
			c.loopDone = true
		}
		if c.exited && (c.loopDone || ctx.Err() != nil) {
			return c.exitCode()
		}
		select {
		case err := <-c.loop:
			c.loopDone = true
			if err != nil {
				c.logger.Error("supervisor ended, new sockets fail from now on", "err", err)
			}
		case s := <-signals:
			if s == unix.SIGCHLD {
				continue
			}
			if c.exited {
				return c.exitCode() // the user has waited long enough
			}
			c.pass(s.(syscall.Signal))
		case <-done:
			done = nil
			c.signal(unix.SIGTERM)
			kill = time.After(killDelay)
		case <-kill:
			c.signal(unix.SIGKILL)
		}
	}
}

// reap collects every child that has ended: the command, and orphans of its tree.
// It reports whether none is left.
func (c *command) reap() (none bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || pid <= 0:
			return err == unix.ECHILD
		case pid == c.pid && (ws.Exited() || ws.Signaled()):
			c.exited, c.status = true, ws
		}
	}
}

func (c *command) exitCode() int {
	if c.status.Signaled() {
		return 128 + int(c.status.Signal())
	}
	return c.status.ExitStatus()
}

// pass hands a signal on. Ctrl-C and Ctrl-\ reach the command by the terminal
// when it is in the foreground with us, and a second one would be one too many.
func (c *command) pass(s syscall.Signal) {
	if (s == unix.SIGINT || s == unix.SIGQUIT) && foreground() {
		return
	}
	c.signal(s)
}

// signal sends s to the command, which is not reaped yet: the pid is its own.
func (c *command) signal(s syscall.Signal) {
	if c.exited {
		return
	}
	if err := unix.Kill(c.pid, s); err != nil {
		c.logger.Debug("signal not passed on", "pid", c.pid, "err", err)
	}
}

// foreground reports whether our process group owns the terminal.
func foreground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	pgrp, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// end stops answering and reports whether the command was executed at all.
func (c *command) end() error {
	if c.sup == nil {
		return nil
	}
	c.sup.stop()
	if !c.loopDone {
		<-c.loop
	}
	c.sup.close()
	return <-c.exec
}
