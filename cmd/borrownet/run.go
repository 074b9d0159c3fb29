package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/nest"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/switchboard"
)

// Exit codes of run and shell when the command did not get as far as its own.
const (
	exitOurs     = 125
	exitNotFound = 127
	exitNoExec   = 126
)

func (a *app) run() *cobra.Command {
	var (
		target targetFlags
		env    envFlags
	)
	cmd := &cobra.Command{
		Use: "run [--session NAME | --pod TARGET] -- COMMAND [ARG...]", Short: "run a command as the pod", Long: runLong, Example: runExample,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, argv []string) error {
			return a.ours(a.runCommand(target, env, argv, cmd.CommandPath()))
		},
	}
	target.add(cmd)
	a.allowIOURing(cmd)
	env.add(cmd)
	cmd.Flags().SetInterspersed(false) // flags after the command's name are the command's
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return a.ours(usage(err.Error(), cmd.CommandPath()+" --help"))
	})
	a.completeSessions(cmd)
	return cmd
}

// ours prints an error that is not the command's and gives it the code that
// wrappers have for it.
func (a *app) ours(err error) error {
	if _, exits := errors.AsType[exitError](err); err == nil || exits {
		return err
	}
	a.ui.fail(fault.From(err))
	return exitError{exitOurs}
}

func (a *app) runCommand(target targetFlags, env envFlags, argv []string, name string) error {
	if len(argv) == 0 {
		return usage("no command is given", name+" -- COMMAND")
	}
	rules, err := env.rules(name)
	if err != nil {
		return err
	}
	if outer := os.Getenv(launch.SessionVar); outer != "" {
		if target.session != "" && target.session != outer || target.pod != "" {
			return a.runInside(target, program{argv: argv, flags: env, rules: rules}, name)
		}
		if err := env.nested(outer); err != nil {
			return err
		}
		return a.become(argv, launch.Adjust(os.Environ(), rules))
	}
	if !target.rungKnown() {
		return target.rungMistake(name)
	}
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	place, err := a.find(client, target, name)
	if err == nil {
		err = target.checkRung(place)
	}
	if err != nil {
		return err
	}
	code, err := a.supervise(context.Background(), place, program{argv: argv, flags: env, rules: rules})
	if err != nil {
		return err
	}
	return exitError{code}
}

// find returns the place of the session that the flags name, and sets one up
// for --pod if there is none.
func (a *app) find(client *daemon.Client, target targetFlags, name string) (session.Place, error) {
	if target.pod == "" {
		picked, err := a.pick(client, target.session)
		if err != nil {
			return session.Place{}, err
		}
		return a.place(client, picked)
	}
	ctx, stop := interruptible()
	defer stop()
	list, err := client.List(ctx, false)
	if err != nil && !errors.Is(err, daemon.ErrNotRunning) {
		return session.Place{}, err
	}
	for _, st := range list {
		if target.matches(st) {
			return a.place(client, st.Session)
		}
	}
	req, err := target.request(name)
	if err != nil {
		return session.Place{}, err
	}
	hold, err := a.raise(ctx, client, daemon.UpRequest{Request: req})
	if err != nil {
		return session.Place{}, err
	}
	defer hold.Close()
	a.ui.say("it stays until: borrownet down %s", hold.Status.Session)
	return a.place(client, hold.Status.Session)
}

// matches reports whether the session is of the target that the flags name.
func (t *targetFlags) matches(st session.Status) bool {
	switch {
	case st.State == session.Lost, st.State == session.Connecting:
		return false
	case t.session != "" && t.session != st.Session:
		return false
	case t.kube.Namespace != "" && t.kube.Namespace != st.Target.Namespace:
		return false
	case t.kube.Context != "" && t.kube.Context != st.Target.Context:
		return false
	case t.container != "" && t.container != st.Target.Container:
		return false
	}
	return t.pod == st.Target.Ref || t.pod == st.Target.Pod
}

// place asks where programs of a session run.
func (a *app) place(client *daemon.Client, name string) (session.Place, error) {
	ctx, stop := interruptible()
	defer stop()
	place, err := client.Place(ctx, name)
	if errors.Is(err, daemon.ErrNotRunning) {
		return place, noSessions()
	}
	return place, err
}

// program is what runs in a session.
type program struct {
	argv  []string
	flags envFlags
	rules launch.Rules // of flags
	extra []string     // added to its environment
}

// supervise runs a program in the session at place and returns its exit code.
// When ctx is done it is ended.
func (a *app) supervise(ctx context.Context, place session.Place, p program) (int, error) {
	env := launch.Compose(os.Environ(), place, p.rules)
	a.report(env)
	if err := p.flags.save(env.Borrowed); err != nil {
		return exitOurs, err
	}
	cfg := supervisor.Config{
		Shim: []string{selfPath(), verbExec}, Argv: p.argv, Env: append(env.Env, p.extra...),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Logger: a.logger(), AllowIOURing: a.ioURing,
	}
	if a.ioURing && place.Hook == session.Relay {
		return exitOurs, usage("--allow-io-uring: session "+place.Session+" has hook relay, where sockets of io_uring would be this machine's",
			"leave the flag out, or use a session with hook seccomp")
	}
	done, err := enter(&cfg, place)
	if err != nil {
		return exitOurs, &fault.Error{Code: fault.Hook, Op: "use session", Object: place.Session, Reason: err.Error(), Hint: "borrownet status " + place.Session, Err: err}
	}
	defer done()
	code, err := supervisor.Run(ctx, cfg)
	if _, ok := errors.AsType[*supervisor.CommandError](err); ok {
		a.ui.fail(&fault.Error{Op: "run", Reason: err.Error()})
		return code, exitError{code}
	}
	if err != nil {
		return code, hookFault(err)
	}
	return code, nil
}

// enter puts the session's rung into cfg.
func enter(cfg *supervisor.Config, place session.Place) (done func(), err error) {
	if place.Hook == session.Relay {
		cfg.Relay, err = switchboard.Dial(place.Socket)
		return func() {}, err
	}
	id, way, err := nest.Enter(place)
	if err != nil {
		return nil, err
	}
	tree := &supervisor.Tree{}
	inner, err := nest.Listen(tree, cfg.Logger)
	if err != nil {
		return nil, errors.Join(err, way.Close())
	}
	cfg.Identity, cfg.Tree = id, tree
	cfg.Env = append(cfg.Env, inner.Env())
	return func() { inner.Close(); way.Close() }, nil
}

// hookFault explains an error of the supervisor.
func hookFault(err error) error {
	if u, ok := errors.AsType[*supervisor.UnsupportedError](err); ok {
		return &fault.Error{Code: fault.Hook, Op: "hook the command", Reason: u.Reason, Hint: u.Hint, Err: err}
	}
	return &fault.Error{Code: fault.Hook, Op: "hook the command", Reason: err.Error(), Err: err}
}

// logger prints warnings of the hook, all that it says with -v.
func (a *app) logger() *slog.Logger { return slog.New(&uiHandler{ui: a.ui}) }

// become replaces this process by argv: in a borrowed shell everything is
// borrowed already.
func (a *app) become(argv, env []string) error {
	path, err := exec.LookPath(argv[0])
	if err == nil {
		err = syscall.Exec(path, argv, env)
	}
	code := exitNoExec
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		code = exitNotFound
	}
	a.ui.fail(&fault.Error{Op: "run", Object: argv[0], Reason: errors.Unwrap(err).Error()})
	return exitError{code}
}
