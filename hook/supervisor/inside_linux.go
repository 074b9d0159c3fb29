package supervisor

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// RunInside runs a command below an outer Run, which supervises it already: a
// process tree can have one supervisor. It behaves as Run does, with cfg's Argv,
// Env, Dir, Stdin, Stdout, Stderr and Logger; the outer one's Tree says whose
// sockets the command gets. It returns when every process that the command left
// behind has ended, so that they can be told from those of others.
func RunInside(ctx context.Context, cfg Config) (exitCode int, err error) {
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
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return codeOurs, os.NewSyscallError("prctl PR_SET_CHILD_SUBREAPER", err)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, handled()...)
	defer signal.Stop(signals)
	files, undo, err := descriptors(cfg)
	if err != nil {
		return codeOurs, err
	}
	pid, err := syscall.ForkExec(path, cfg.Argv, &syscall.ProcAttr{Dir: cfg.Dir, Env: cfg.Env, Files: files})
	undo()
	if err != nil {
		return failed(commandError(cfg.Argv[0], err))
	}
	c := &command{pid: pid, name: cfg.Argv[0], logger: cfg.Logger, loop: make(chan error)}
	return c.wait(ctx, signals), nil
}
