package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/doctor"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

func (a *app) doctor() *cobra.Command {
	var (
		target  targetFlags
		output  outputFlag
		offline bool
	)
	cmd := &cobra.Command{
		Use: "doctor [--offline | --pod TARGET]", Short: "look for what would keep borrownet from working", Long: doctorLong, Example: doctorExample, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(cmd.CommandPath()); err != nil {
				return err
			}
			if outer := os.Getenv(launch.SessionVar); outer != "" {
				return &fault.Error{Code: fault.Usage, Reason: "this shell is borrowed, by session " + outer + ": what is found here is not this machine's",
					Hint: "use another terminal, or leave it with exit first"}
			}
			ctx, stop := interruptible()
			defer stop()
			checks, up := a.checkMachine(ctx)
			if !offline {
				checks = append(checks, checkPaths(ctx, up)...)
				more, err := a.checkCluster(ctx, &target)
				if err != nil {
					return err
				}
				checks = append(checks, more...)
			}
			if ctx.Err() != nil {
				return fault.From(context.Canceled)
			}
			return a.diagnose(checks, output.value)
		},
	}
	f := cmd.Flags()
	output.add(cmd)
	f.BoolVar(&offline, "offline", false, "look at this machine only, ask no cluster")
	f.StringVar(&target.pod, "pod", "", "`TARGET` to look for and to judge the agent for: pod, TYPE/NAME or bare name")
	f.StringVarP(&target.container, "container", "c", "", "`NAME` of the container whose environment would be borrowed")
	f.StringVar(&target.image, "agent-image", "", "`IMAGE` of the agent")
	target.addKube(cmd)
	complete(cmd, "pod", target.completeTargets)
	cmd.MarkFlagsMutuallyExclusive("offline", "pod")
	return cmd
}

// checkMachine looks at this machine, and returns the daemon that runs on it, nil if there
// is none.
func (a *app) checkMachine(ctx context.Context) ([]doctor.Check, *daemon.Client) {
	dir, err := rundir.Open()
	place := "/nonexistent" // the helper has nothing to clean up then
	if err == nil {
		defer dir.Remove()
		place = dir.String()
	}
	m := doctor.Look(ctx, []string{selfPath(), verbNetns, place})
	m.RunDir, m.NoRunDir, m.Kept = dir, err, keptFile
	var up *daemon.Client
	if err == nil {
		c := daemon.NewClient(daemon.ClientConfig{Dir: dir, Version: a.version, Keep: keptFile})
		if _, err := c.Hello(ctx); !errors.Is(err, daemon.ErrNotRunning) {
			m.Daemon, up = true, c
		}
	}
	return m.Check(), up
}

// checkPaths measures the paths of the sessions of a daemon, if there is one.
func checkPaths(ctx context.Context, up *daemon.Client) []doctor.Check {
	if up == nil {
		return nil
	}
	list, err := up.List(ctx, true)
	if err != nil {
		return []doctor.Check{doctor.Unanswered(err)}
	}
	return doctor.Paths(list)
}

// checkCluster asks the cluster that the flags select.
func (a *app) checkCluster(ctx context.Context, target *targetFlags) ([]doctor.Check, error) {
	flags, err := absolute(target.kube)
	if err != nil {
		return nil, err
	}
	flags.Stdin = interactive()
	b := &doctor.Borrow{Connect: connect, Request: session.Request{
		Ref: target.pod, Container: target.container, Kube: flags,
	}}
	named := *target
	if named.pod == "" {
		named.pod = "NAME" // for the hint
	}
	b.Request.Image, b.Request.Binaries, b.NoImage = named.agent("borrownet up")
	return b.Check(ctx), nil
}

// diagnose prints the checks and fails as a command would.
func (a *app) diagnose(checks []doctor.Check, output string) error {
	var shown error
	if output != "" {
		shown = a.ui.encode(output, checks)
	} else {
		shown = a.ui.checks(checks)
	}
	if code := doctor.Verdict(checks); shown == nil && code != 0 {
		return exitError{int(code)}
	}
	return shown
}
