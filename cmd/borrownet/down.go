package main

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
)

func (a *app) down() *cobra.Command {
	var (
		all, stopAgent bool
		name           string
	)
	cmd := &cobra.Command{
		Use: "down [NAME | --all]", Short: "end a session", Long: downLong, Args: atMostOne, ValidArgsFunction: a.sessionNames,
		RunE: func(cmd *cobra.Command, args []string) error {
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
