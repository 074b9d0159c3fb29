package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
)

func (a *app) explainDNS() *cobra.Command {
	var (
		session, qtype string
		output         outputFlag
	)
	cmd := &cobra.Command{
		Use: "dns NAME", Short: "resolve a name as a wrapped program would, and say how", Long: explainDNSLong, Example: explainDNSExample,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("one name is wanted", cmd.CommandPath()+" orders")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(cmd.CommandPath() + " " + args[0]); err != nil {
				return err
			}
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
			e, err := client.ExplainName(ctx, picked, args[0], qtype)
			switch {
			case errors.Is(err, daemon.ErrNotRunning):
				return noSessions()
			case err != nil:
				return err
			case output.encoded():
				return a.ui.encode(output.value, e)
			}
			return a.ui.explainName(e)
		},
	}
	cmd.Flags().StringVar(&session, "session", "", "`NAME` of the session (default: the only one there is)")
	cmd.Flags().StringVarP(&qtype, "type", "t", "A", "`TYPE` of the records")
	output.add(cmd)
	a.completeSessions(cmd)
	return cmd
}
