package main

import (
	"context"
	"errors"
	"strings"
	"time"

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
	return "", &fault.Error{Code: fault.NoSession, Op: "choose a session", Reason: "there are several: " + strings.Join(names, ", "),
		Hint: "name one: --session " + names[0]}
}

func noSessions() error {
	return &fault.Error{Code: fault.NoSession, Op: "find session", Reason: "none is up", Hint: "borrownet up --pod NAME"}
}

// completeSessions lets the shell complete --session.
func (a *app) completeSessions(cmd *cobra.Command) {
	if err := cmd.RegisterFlagCompletionFunc("session", a.sessionNames); err != nil {
		panic(err) // the flag exists: unreachable
	}
}

// sessionNames lists the sessions for shell completion.
func (a *app) sessionNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, dir, err := a.client()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer dir.Remove()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	list, err := client.List(ctx, false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, st := range list {
		names = append(names, st.Session)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
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
