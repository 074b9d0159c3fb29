package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/demo"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/hook"
)

func (a *app) demo() *cobra.Command {
	var (
		keep   bool
		target targetFlags
	)
	cmd := &cobra.Command{
		Use: "demo [--keep]", Short: "show it all on a built-in cluster", Long: demoLong, Example: demoExample, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !target.rungKnown() {
				return target.rungMistake(cmd.CommandPath())
			}
			if target.hook == string(hook.None) {
				return usage("--hook none: the demo runs programs", cmd.CommandPath()+" --hook auto")
			}
			var up []string
			if cmd.Flags().Changed("hook") {
				up = []string{"--hook", target.hook}
			}
			return a.showDemo(keep, up)
		},
	}
	cmd.Flags().StringVar(&target.hook, "hook", string(hook.Auto), "`RUNG` by which programs enter the session: "+rungNames())
	cmd.Flags().BoolVar(&keep, "keep", false, "leave it up to play with, until interrupted")
	cmd.AddCommand(a.demoCall(), a.demoRoll())
	return cmd
}

// demoRoll replaces the pod that the demo's session is on, so that one sees what
// becomes of it.
func (a *app) demoRoll() *cobra.Command {
	return &cobra.Command{
		Use: "roll", Short: "replace the pod of deploy/api, as a rollout does", Long: demoRollLong, Hidden: true, Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			dir := demoRunning()
			if dir == nil {
				return &fault.Error{Code: fault.Cluster, Op: "replace", Object: "deploy/api", Reason: "no demo is running", Hint: "borrownet demo --keep"}
			}
			defer dir.Remove()
			ctx, stop := interruptible()
			defer stop()
			name, err := demo.NewClient(dir, kube.Flags{}).Roll(ctx)
			if err != nil {
				return err
			}
			a.ui.say("deploy/api has pod %s now", name)
			return nil
		},
	}
}

// demoCall is the program that the demo runs: a caller that needs nothing of
// the machine.
func (a *app) demoCall() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "call URL [TEXT]", Short: "call a URL, as any program does", Long: demoCallLong, Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return usage("a URL to call is needed", cmd.CommandPath()+" http://orders")
			}
			text := "hello"
			if len(args) == 2 {
				text = args[1]
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			return demo.Call(ctx, args[0], text, hook.Lookup(a.found, hook.EnvVar), a.ui.out)
		},
	}
	cmd.Flags().DurationVar(&limit, "timeout", 30*time.Second, "`TIME` to wait for the answer")
	return cmd
}

// showDemo makes the world, tells the story and takes everything away again. up are
// more words for the command that borrows.
func (a *app) showDemo(keep bool, up []string) (err error) {
	if outer := os.Getenv(launch.SessionVar); outer != "" {
		return usage("this shell is borrowed already, by session "+outer, "leave it with exit first, or use another terminal")
	}
	ctx, stop := interruptible()
	defer stop()
	began := time.Now()
	st, err := newStage(keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.strike()) }()
	log := slog.New(slog.DiscardHandler)
	if a.ui.verbose {
		log = a.logger()
	}
	if err := st.open(a.version, log); err != nil {
		return err
	}
	a.ui.remark(demoIntro)
	if err := a.tell(ctx, st, story(keep, up...)); err != nil {
		return err
	}
	if keep {
		a.ui.remark(playText(st))
		<-ctx.Done()
		return nil
	}
	if err := st.strike(); err != nil {
		return err
	}
	a.ui.remark("that was all, in " + time.Since(began).Round(100*time.Millisecond).String() +
		": no process, file or namespace of it is left")
	return nil
}

// playText says what can be done with a demo that stays.
func playText(st *stage) string {
	lines := []string{"it stays up until you press Ctrl-C here (or kill this process); in another terminal:"}
	for _, set := range st.exports() {
		lines = append(lines, "  "+set)
	}
	return strings.Join(append(lines,
		"  borrownet shell                                          a shell that is the pod, try: curl http://orders",
		"  borrownet run -- borrownet demo call http://orders/any   without curl; also tcp://ledger:7 tcp://ledger:9",
		"  borrownet run -- borrownet demo call udp://ledger:11     dns://NAME; blackhole and unreachable are hosts too",
		"  borrownet demo roll                                      a rollout replaces the pod: the session goes on at the next",
		"  borrownet status --watch",
		"  borrownet down && borrownet up --pod api --context demo -d"), "\n")
}
