package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/encode"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// watchPause is the time between two pictures of a watch.
const watchPause = time.Second

func (a *app) status() *cobra.Command {
	var (
		output string
		watch  bool
	)
	cmd := &cobra.Command{
		Use: "status [NAME]", Short: "show sessions and prove that they work", Long: statusLong, Args: atMostOne,
		ValidArgsFunction: a.sessionNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && !slices.Contains(encode.Formats, output) {
				return usage("-o "+output+": not json or yaml", cmd.CommandPath()+" -o json")
			}
			client, dir, err := a.client()
			if err != nil {
				return err
			}
			defer dir.Remove()
			ctx, stop := interruptible()
			defer stop()
			return a.showStatus(ctx, watch, func(ctx context.Context) error {
				return a.statusOnce(ctx, client, args, output)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FORMAT`: json or yaml")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second until interrupted")
	return cmd
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

func (a *app) statusOnce(ctx context.Context, client *daemon.Client, args []string, output string) error {
	list, err := a.statuses(ctx, client, args)
	if ctx.Err() != nil {
		return fault.From(context.Canceled)
	}
	if err != nil {
		return err
	}
	var shown error
	switch {
	case output != "" && len(args) == 1:
		shown = a.ui.encode(output, list[0])
	case output != "":
		shown = a.ui.encode(output, list)
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
		return &fault.Error{Code: fault.NoDataPath, Op: "reach the agent in", Object: "pod " + st.Target.Namespace + "/" + st.Target.Pod,
			Reason: "no answer", Hint: "borrownet status --watch"}
	}
	return nil
}
