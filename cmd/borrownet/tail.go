package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/encode"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

func (a *app) tail() *cobra.Command {
	var name, output string
	cmd := &cobra.Command{
		Use: "tail", Short: "show mirrored requests as they come", Long: tailLong, Example: tailExample, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return usage("-o "+output+": not json", cmd.CommandPath()+" -o json")
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
			ctx, stop := interruptible()
			defer stop()
			err = client.WatchRequests(ctx, picked, func() { a.ui.detail("watching session %s", picked) }, func(q session.MirroredRequest) { a.ui.mirrored(q, output) })
			if errors.Is(err, daemon.ErrNotRunning) {
				return noSessions()
			}
			return err
		},
	}
	cmd.Flags().StringVar(&name, "session", "", "`NAME` of the session (default: the only one there is)")
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FORMAT`: json, one object a line")
	a.completeSessions(cmd)
	return cmd
}

// mirrored prints what became of a mirrored request.
func (u *ui) mirrored(q session.MirroredRequest, output string) {
	if output == "json" {
		if text, err := encode.Line(q); err == nil { // it always is
			_, _ = u.out.Write(text) // a pipe that is closed ends the program
		}
		return
	}
	if q.Missed > 0 {
		u.warn(fmt.Sprintf("%d requests are not shown: they come faster than they can be printed", q.Missed), "")
	}
	u.request(q.Request)
}
