package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/dash"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// watchPause is the time between two pictures of a watch.
const watchPause = time.Second

func (a *app) status() *cobra.Command {
	var (
		output outputFlag
		watch  bool
	)
	cmd := &cobra.Command{
		Use: "status [NAME]", Short: "show sessions and prove that they work", Long: statusLong, Args: atMostOne,
		ValidArgsFunction: a.sessionNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(cmd.CommandPath()); err != nil {
				return err
			}
			client, dir, err := a.client()
			if err != nil {
				return err
			}
			defer dir.Remove()
			ctx, stop := interruptible()
			defer stop()
			if watch && output.value == "" && interactive() && isTerminal(os.Stdout) {
				return a.dashboard(ctx, client, args)
			}
			return a.showStatus(ctx, watch, func(ctx context.Context) error {
				return a.statusOnce(ctx, client, args, output)
			})
		},
	}
	output.add(cmd, formatWide)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "a dashboard on a terminal, else it again every second, until interrupted")
	return cmd
}

// dashboard shows sessions until the person leaves it, or none is left.
func (a *app) dashboard(ctx context.Context, client *daemon.Client, args []string) error {
	return dash.Run(ctx, dash.Config{
		Poll: func(ctx context.Context) ([]session.Status, error) { return a.statuses(ctx, client, args) },
		Over: noneUp, Rows: statusRows, In: os.Stdin, Out: os.Stdout,
	})
}

// showStatus shows once or, to watch, until ctx ends or nothing is left to show.
func (a *app) showStatus(ctx context.Context, watch bool, once func(context.Context) error) error {
	if !watch {
		return once(ctx)
	}
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	for {
		a.ui.clear()
		err := once(ctx)
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Code == fault.NoSession {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *app) statusOnce(ctx context.Context, client *daemon.Client, args []string, output outputFlag) error {
	list, err := a.statuses(ctx, client, args)
	if ctx.Err() != nil {
		return fault.From(context.Canceled)
	}
	if err != nil {
		return err
	}
	var shown error
	switch {
	case output.encoded() && len(args) == 1:
		shown = a.ui.encode(output.value, list[0])
	case output.encoded():
		shown = a.ui.encode(output.value, list)
	case output.wide():
		shown = a.ui.sessionTable(list)
	default:
		shown = a.ui.status(list)
		a.ui.meshProblems(list)
	}
	return errors.Join(shown, verdict(list))
}

// statuses asks for the named session, or for all.
func (a *app) statuses(ctx context.Context, client *daemon.Client, args []string) ([]session.Status, error) {
	if len(args) == 1 {
		st, err := client.Status(ctx, args[0])
		if errors.Is(err, daemon.ErrNotRunning) {
			err = daemon.NoSession(args[0])
		}
		return []session.Status{st}, err
	}
	list, err := client.List(ctx, true)
	if errors.Is(err, daemon.ErrNotRunning) || err == nil && len(list) == 0 {
		return nil, noSessions()
	}
	return list, err
}

// verdict is the error of the first session that is not ready.
func verdict(list []session.Status) error {
	for _, st := range list {
		switch {
		case st.State == session.Ready && st.RoundTrip > 0:
			continue
		case st.Problem != nil:
			return st.Problem
		case st.State == session.Connecting:
			return &fault.Error{Code: fault.NoDataPath, Op: "use session", Object: st.Session, Reason: "it is still being set up"}
		}
		return &fault.Error{Code: fault.NoDataPath, ID: "BN3301", Op: "reach the agent in", Object: "pod " + st.Target.Namespace + "/" + st.Target.Pod,
			Reason: "no answer", Hint: "borrownet status --watch"}
	}
	return nil
}
