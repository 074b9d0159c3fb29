package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
)

func (a *app) ls() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "list sessions", Long: "List sessions, without asking the cluster.", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
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
			return a.ui.sessions(list)
		},
	}
}
