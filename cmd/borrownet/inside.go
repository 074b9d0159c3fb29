package main

import (
	"context"
	"errors"
	"os"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/nest"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/supervisor"
)

// runInside runs a program in another session than the one this process is in.
func (a *app) runInside(target targetFlags, p program, name string) error {
	outer, around := os.Getenv(launch.SessionVar), os.Getenv(launch.HookVar)
	if around == "" {
		return usage("this shell is borrowed already, by session "+outer, "leave it with exit first, or use another terminal")
	}
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	// A daemon that was started from here would be a program of the outer session.
	if _, err := client.List(context.Background(), false); errors.Is(err, daemon.ErrNotRunning) {
		return noSessions()
	}
	place, err := a.find(client, target, name)
	if err != nil {
		return err
	}
	if place.Hook != hook.Seccomp {
		return usage("session "+place.Session+" has hook "+string(place.Hook)+", which is not to be had inside session "+outer, "leave this one with exit first, or use another terminal")
	}
	inner, err := nest.Join(around, place)
	if err != nil {
		return &fault.Error{Code: fault.Hook, Op: "use session", Object: place.Session, Reason: err.Error(), Hint: "borrownet status " + place.Session, Err: err}
	}
	env := launch.Compose(os.Environ(), place, p.rules)
	a.report(env)
	if err := p.flags.save(env.Borrowed); err != nil {
		return errors.Join(err, inner.Leave())
	}
	defer a.listen(client, place.Session)()
	code, err := supervisor.RunInside(context.Background(), supervisor.Config{
		Argv: p.argv, Env: append(hook.WithoutLibrary(env.Env), launch.HookVar+"="+around),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Logger: a.logger(),
	})
	if lerr := inner.Leave(); lerr != nil {
		a.ui.detail("session %s: %v", place.Session, lerr)
	}
	if _, ok := errors.AsType[*supervisor.CommandError](err); ok {
		a.ui.fail(&fault.Error{Op: "run", Reason: err.Error()})
		return exitError{code}
	}
	if err != nil {
		return hookFault(err)
	}
	return exitError{code}
}
