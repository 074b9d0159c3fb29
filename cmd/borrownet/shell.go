package main

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/proc"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

func (a *app) shell() *cobra.Command {
	var (
		name string
		env  envFlags
	)
	cmd := &cobra.Command{
		Use: "shell [--session NAME]", Short: "open a shell as the pod", Long: shellLong, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ours(a.openShell(name, env, cmd.CommandPath())) },
	}
	env.add(cmd)
	cmd.Flags().StringVar(&name, "session", "", "`NAME` of the session (default: the only one there is)")
	a.allowIOURing(cmd)
	a.completeSessions(cmd)
	return cmd
}

func (a *app) openShell(name string, env envFlags, command string) error {
	rules, err := env.rules(command)
	if err != nil {
		return err
	}
	if outer := os.Getenv(launch.SessionVar); outer != "" {
		return usage("this shell is borrowed already, by session "+outer, "leave it with exit first, or use another terminal")
	}
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	picked, err := a.pick(client, name)
	if err != nil {
		return err
	}
	place, err := a.place(client, picked)
	if err == nil {
		err = takesPrograms(place.Session, place.Hook)
	}
	if err != nil {
		return err
	}
	defer a.listen(client, place.Session)()
	code, err := a.runShell(place, dir.String(), program{flags: env, rules: rules})
	if err != nil {
		return err
	}
	return exitError{code}
}

// runShell runs the person's shell in the session at place. dir is where its
// start-up files may be. What the shell leaves running in the background is
// waited for, because its connections need this process.
func (a *app) runShell(place session.Place, dir string, p program) (int, error) {
	sh, err := newShell(place, dir)
	if err != nil {
		return exitOurs, err
	}
	defer sh.Close()
	p.argv, p.extra = sh.Argv, sh.Env
	return a.supervise(context.Background(), place, p)
}

// runOwnShell is runShell for a session that ends with the shell: what is left
// running then has no network any more, so nothing is waited for.
func (a *app) runOwnShell(place session.Place, dir string, p program) error {
	sh, err := newShell(place, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the shell or sh.Close
		if pid, err := sh.Pid(); err == nil {
			proc.AwaitExit(ctx, pid)
			cancel()
		}
	})
	p.argv, p.extra = sh.Argv, sh.Env
	_, err = a.supervise(ctx, place, p)
	cancel()
	err = errors.Join(err, sh.Close())
	wg.Wait()
	if _, exits := errors.AsType[exitError](err); exits {
		return nil // the shell could not be executed, and was said so
	}
	return err
}

func newShell(place session.Place, dir string) (*launch.Shell, error) {
	sh, err := launch.NewShell(os.Getenv("SHELL"), dir, place.Session)
	if err != nil {
		return nil, &fault.Error{Code: fault.Laptop, Op: "prepare shell", Reason: err.Error(), Err: err}
	}
	return sh, nil
}
