package main

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/cmd/internal/settings"
)

func (a *app) down() *cobra.Command {
	var (
		all, stopAgent bool
		name, file     string
	)
	cmd := &cobra.Command{
		Use: "down [NAME | --all | -f FILE [SERVICE...]]", Short: "end a session, or a stack", Long: downLong, Args: cobra.ArbitraryArgs, ValidArgsFunction: completeStack(&file, a.sessionNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				if all || name != "" {
					return usage("either --file, or a session's name, or --all", cmd.CommandPath()+" -f "+file)
				}
				return a.downStack(file, args, stopAgent)
			}
			if err := atMostOne(cmd, args); err != nil {
				return err
			}
			if len(args) == 1 && args[0] == "" || cmd.Flags().Changed("session") && name == "" {
				return usage("the name of the session is empty", cmd.CommandPath()+" NAME")
			}
			if len(args) == 1 && name == "" {
				name = args[0]
			} else if len(args) == 1 {
				return usage("the session is named twice", cmd.CommandPath()+" "+args[0])
			}
			if all && name != "" {
				return usage("either a session's name or --all", cmd.CommandPath()+" --all")
			}
			client, dir, err := a.client()
			if err != nil {
				return err
			}
			defer dir.Remove()
			ctx, stop := interruptible()
			defer stop()
			if all {
				return a.downAll(ctx, client, stopAgent)
			}
			return a.downOne(ctx, client, name, stopAgent)
		},
	}
	stackFile(cmd, &file, "that describes sessions: these end, or those named")
	cmd.Flags().BoolVar(&all, "all", false, "end every session")
	cmd.Flags().BoolVar(&stopAgent, "stop-agent", false, "end the agent in the pod too, now")
	cmd.Flags().StringVar(&name, "session", "", "`NAME` of the session, as the argument")
	a.completeSessions(cmd)
	return cmd
}

func (a *app) downOne(ctx context.Context, client *daemon.Client, name string, stopAgent bool) error {
	name, err := a.pick(client, name)
	if err != nil {
		return err
	}
	d, err := client.Down(ctx, name, stopAgent)
	if errors.Is(err, daemon.ErrNotRunning) {
		return daemon.NoSession(name)
	}
	if err != nil {
		return err
	}
	a.ui.downed(d)
	return nil
}

// downAll ends every session; none is fine.
func (a *app) downAll(ctx context.Context, client *daemon.Client, stopAgent bool) error {
	list, err := client.List(ctx, false)
	if errors.Is(err, daemon.ErrNotRunning) || err == nil && len(list) == 0 {
		a.ui.say("no session is up")
		return nil
	}
	if err != nil {
		return err
	}
	return a.downThose(ctx, client, list, stopAgent)
}

func (a *app) downThose(ctx context.Context, client *daemon.Client, list []session.Status, stopAgent bool) error {
	errs := make([]error, len(list))
	downed := make([]daemon.Downed, len(list))
	var wg sync.WaitGroup
	for i, st := range list {
		wg.Go(func() { downed[i], errs[i] = client.Down(ctx, st.Session, stopAgent) })
	}
	wg.Wait()
	for i, d := range downed {
		if errs[i] == nil {
			a.ui.downed(d)
		}
	}
	return errors.Join(errs...)
}

// downStack ends the sessions of a stack that are up; none is fine.
func (a *app) downStack(path string, only []string, stopAgent bool) error {
	file, err := settings.Load(path)
	if err != nil {
		return err
	}
	names, err := services(file, only)
	if err != nil {
		return err
	}
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	ctx, stop := interruptible()
	defer stop()
	list, err := client.List(ctx, false)
	if err != nil && !errors.Is(err, daemon.ErrNotRunning) {
		return err
	}
	list = slices.DeleteFunc(list, func(st session.Status) bool { return !slices.Contains(names, st.Session) })
	if len(list) == 0 {
		a.ui.say("no session of %s is up", path)
		return nil
	}
	return a.downThose(ctx, client, list, stopAgent)
}
