package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// stdout as the name of a file is standard output.
const stdout = "-"

func (a *app) cp() *cobra.Command {
	var session string
	cmd := &cobra.Command{
		Use: "cp PATH FILE", Short: "copy a file of the pod", Long: cpLong, Example: cpExample,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage("a path in the pod and a file here are wanted", cmd.CommandPath()+" /etc/app/config.yaml config.yaml")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, dir, err := a.client()
			if err != nil {
				return err
			}
			defer dir.Remove()
			picked, err := a.pick(client, session)
			if err != nil {
				return err
			}
			ctx, stop := interruptible()
			defer stop()
			return a.copyFile(ctx, client, picked, args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&session, "session", "", "`NAME` of the session (default: the only one there is)")
	a.completeSessions(cmd)
	return cmd
}

// copyFile reads a file of the pod and writes it here, for this user alone.
func (a *app) copyFile(ctx context.Context, client *daemon.Client, session, from, to string) error {
	data, err := client.ReadFile(ctx, session, from)
	switch {
	case errors.Is(err, daemon.ErrNotRunning):
		return noSessions()
	case err != nil:
		return err
	case to == stdout:
		return a.ui.raw(string(data))
	}
	if err := replace(to, data); err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "write", Object: to, Reason: cause(err), Err: err,
			Hint: "is there that directory, and may you write to it? ls -ld " + filepath.Dir(to)}
	}
	return nil
}
