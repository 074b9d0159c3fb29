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
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
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
		file   string
	)
	cmd := &cobra.Command{
		Use: "run [--session NAME | --pod TARGET] -- COMMAND [ARG...] | run SERVICE", Short: "run a command as the pod", Long: runLong, Example: runExample,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, argv []string) error {
			call, err := service(cmd, argv, file, target, env)
			if err == nil && call != nil {
				err = call.enter()
			}
			switch {
			case err != nil:
				return a.ours(err)
			case call != nil:
				return a.ours(a.runCommand(call.target, call.env, call.argv, cmd.CommandPath()))
			}
			return a.ours(a.runCommand(target, env, argv, cmd.CommandPath()))
		},
	}
	target.add(cmd)
	a.allowIOURing(cmd)
	a.addProgress(cmd)
	env.add(cmd)
	stackFile(cmd, &file, "of the stack that SERVICE is of (default: borrownet.yaml)")
	cmd.Flags().SetInterspersed(false) // flags after the command's name are the command's
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return a.ours(usage(err.Error(), cmd.CommandPath()+" --help"))
	})
	a.completeSessions(cmd)
	cmd.ValidArgsFunction = completeRun(&file, &target)
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
	defer a.listen(client, place.Session)()
	code, err := a.supervise(context.Background(), place, program{argv: argv, hook: hook.Rung(target.hook), flags: env, rules: rules})
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
	hook  hook.Rung // "" = hook.Auto
	flags envFlags
	rules launch.Rules // of flags
	extra []string     // added to its environment

	outside *outside // watches what it connects to
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
