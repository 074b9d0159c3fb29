package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// pick returns name, or that of the only session there is.
func (a *app) pick(client *daemon.Client, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	ctx, stop := interruptible()
	defer stop()
	list, err := client.List(ctx, false)
	switch {
	case errors.Is(err, daemon.ErrNotRunning), err == nil && len(list) == 0:
		return "", noSessions()
	case err != nil:
		return "", err
	case len(list) == 1:
		return list[0].Session, nil
	}
	var names []string
	for _, st := range list {
		names = append(names, st.Session)
	}
	return "", &fault.Error{Code: fault.NoSession, ID: "BN3003", Op: "choose a session", Reason: "there are several: " + strings.Join(names, ", "),
		Hint: "name one: --session " + names[0]}
}

func noSessions() error {
	return &fault.Error{Code: fault.NoSession, ID: "BN3001", Op: "find session", Reason: "none is up", Hint: "borrownet up --pod NAME"}
}

// noArgs and atMostOne say in our words what cobra's own checks say in theirs.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("unexpected argument "+args[0], cmd.CommandPath()+" --help")
	}
	return nil
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("unexpected argument "+args[1], cmd.CommandPath()+" --help")
	}
	return nil
}
