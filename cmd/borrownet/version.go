package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/build"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Long: "Print the version of this program, and of the daemon if one runs.", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			text := fmt.Sprintf("borrownet %s %s\n", a.version, build.Platform())
			client, dir, err := a.client()
			if err == nil {
				defer dir.Remove()
				ctx, stop := interruptible()
				defer stop()
				if hello, err := client.Hello(ctx); err == nil {
					text += fmt.Sprintf("daemon %s pid %d\n", hello.Version, hello.PID)
				}
			}
			return a.ui.print(text)
		},
	}
}
