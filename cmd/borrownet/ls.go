package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// catalogue is a cluster that can be looked into. Every one that connect returns
// can.
type catalogue interface {
	Offers(ctx context.Context, namespace string) (*kube.Offers, error)
	ListNamespaces(ctx context.Context) ([]string, error)
}

func (a *app) ls() *cobra.Command {
	var (
		target targetFlags
		output outputFlag
		all    bool
	)
	cmd := &cobra.Command{
		Use: "ls [-n NAMESPACE | -A]", Short: "list what can be borrowed, and who borrows it", Long: lsLong, Example: lsExample, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(cmd.CommandPath()); err != nil {
				return err
			}
			if outer := os.Getenv(launch.SessionVar); outer != "" {
				return usage("this shell is borrowed, by session "+outer+": the API server would be asked from the pod", "use another terminal, or leave it with exit first")
			}
			namespace := target.kube.Namespace
			if all {
				namespace = kube.AllNamespaces
			}
			ctx, stop := interruptible()
			defer stop()
			offers, err := a.offers(ctx, target.kube, namespace)
			switch {
			case err != nil:
				return err
			case output.encoded():
				return a.ui.encode(output.value, offers)
			}
			return a.ui.offers(offers, all, output.wide())
		},
	}
	output.add(cmd, formatWide)
	target.addKube(cmd)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "look into every namespace")
	cmd.MarkFlagsMutuallyExclusive("all-namespaces", "namespace")
	return cmd
}

// offers asks the cluster, and marks what is borrowed by sessions of this user.
func (a *app) offers(ctx context.Context, flags kube.Flags, namespace string) (*kube.Offers, error) {
	flags, err := absolute(flags)
	if err != nil {
		return nil, err
	}
	flags.Stdin = interactive()
	cluster, err := connect(flags)
	if err != nil {
		return nil, session.Explain(err)
	}
	defer cluster.Close()
	c, ok := cluster.(catalogue)
	if !ok {
		return nil, &fault.Error{Code: fault.Cluster, Op: "look into", Object: "context " + cluster.Context(), Reason: "it cannot be listed"}
	}
	offers, err := c.Offers(ctx, namespace)
	if err != nil {
		return nil, session.Explain(err)
	}
	claim(offers, a.ownSessions(ctx))
	return offers, nil
}

// claim marks the agents that serve sessions.
func claim(offers *kube.Offers, sessions []session.Status) {
	for i := range offers.Targets {
		o := &offers.Targets[i]
		for j := range o.Borrowers {
			for _, st := range sessions {
				if st.Target.Namespace == o.Namespace && st.Target.Pod == o.Borrowers[j].Pod && st.Agent.Container == o.Borrowers[j].Container {
					o.Borrowers[j].Session = st.Session
				}
			}
		}
	}
}

// ownSessions lists the sessions of this user; none if that cannot be found out.
func (a *app) ownSessions(ctx context.Context) []session.Status {
	client, dir, err := a.client()
	if err != nil {
		return nil
	}
	defer dir.Remove()
	list, err := client.List(ctx, false)
	if err != nil {
		a.ui.detail("sessions of yours: %v", err)
	}
	return list
}
