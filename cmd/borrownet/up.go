package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/supervisor"
)

func (a *app) up() *cobra.Command {
	var (
		target         targetFlags
		docker         dockerFlag
		env            envFlags
		detach, dryRun bool
		replicas       bool
		file           string
	)
	cmd := &cobra.Command{
		Use: "up --pod TARGET | up -f FILE [SERVICE...]", Short: "borrow a pod, or a stack of them", Long: upLong, Example: upExample, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				if target.pod != "" || target.session != "" || target.container != "" || dryRun || replicas || env.any() {
					return usage("--file: what the file says of its sessions is not said on the command line", cmd.CommandPath()+" -f "+file)
				}
				return a.upStack(file, args, target, detach, cmd.CommandPath())
			}
			if err := noArgs(cmd, args); err != nil {
				return err
			}
			if replicas {
				if dryRun || docker.name != "" || env.any() {
					return usage("--all-replicas goes without --dry-run, --docker and flags about the environment", cmd.CommandPath()+" --pod deploy/api --mirror 8080:3000 --all-replicas")
				}
				return a.upReplicas(target, detach, cmd.CommandPath())
			}
			req, err := target.request(cmd.CommandPath())
			if err != nil {
				return err
			}
			rules, err := env.rules(cmd.CommandPath())
			if err != nil {
				return err
			}
			if dryRun {
				return a.plan(req)
			}
			ctx, stop := interruptible()
			req.Docker, err = docker.request(ctx, a, cmd.CommandPath()+" --pod "+target.pod)
			stop()
			if err != nil {
				return err
			}
			err = a.borrow(req, detach, program{flags: env, rules: rules})
			if err != nil && req.Docker != nil {
				unloadImages(req.Docker.Engine)
			}
			return err
		},
	}
	target.add(cmd)
	docker.add(cmd)
	a.allowIOURing(cmd)
	a.addProgress(cmd)
	env.add(cmd)
	stackFile(cmd, &file, "that describes sessions: all are set up, or those named")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return when the session is ready")
	cmd.Flags().BoolVar(&replicas, "all-replicas", false, "mirror every ready pod of the workload, with a session for each")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would change, and which rights are missing; change nothing")
	cmd.ValidArgsFunction = completeStack(&file, nothing)
	return cmd
}

// interruptible returns a context that ends with SIGINT, SIGTERM and SIGHUP.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// plan prints what up would do to the pod, and fails as up would.
func (a *app) plan(req session.Request) error {
	ctx, stop := interruptible()
	defer stop()
	req.Kube.Stdin = interactive()
	text, err := session.Plan(ctx, connect, req)
	if printed := a.ui.print(string(text)); err == nil {
		return printed
	}
	return fault.From(err)
}

// borrow sets a session up and stays with it unless detached. shell is how the
// sub-shell is to be.
func (a *app) borrow(req session.Request, detach bool, shell program) error {
	if err := usable(req, detach); err != nil {
		return err
	}
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	ctx, stop := interruptible()
	defer stop()
	hold, err := a.raise(ctx, client, daemon.UpRequest{Request: req, Owned: !detach})
	if err != nil {
		return err
	}
	defer hold.Close()
	name := hold.Status.Session
	if shell.flags.out != "" && (detach || !interactive()) {
		if err := a.saveEnvironment(client, name, shell); err != nil {
			return errors.Join(err, a.takeDown(client, name))
		}
	}
	next, programs := "borrownet run --session "+name+" -- COMMAND", hold.Status.Hook != hook.None
	if !programs {
		next = forwardInstead(name)
	}
	if detach {
		a.ui.say("next: %s, and at the end: borrownet down %s", next, name)
		return nil
	}
	if programs && interactive() {
		stop() // from now on signals are the shell's
		return a.subshell(client, dir.String(), hold, shell)
	}
	a.ui.say("next: %s; SIGINT or SIGTERM ends the session", next)
	return a.attend(ctx, client, hold)
}

// saveEnvironment writes the session's environment where --env-out says, if no
// shell does.
func (a *app) saveEnvironment(client *daemon.Client, name string, shell program) error {
	place, err := a.place(client, name)
	if err != nil {
		return err
	}
	return shell.flags.save(launch.Compose(os.Environ(), place, shell.rules).Borrowed)
}

// usable reports why a new session would be of no use to this terminal or
// machine, as far as that is known before a namespace is made.
func usable(req session.Request, detach bool) error {
	outer := os.Getenv(launch.SessionVar)
	switch {
	case outer != "" && !detach:
		return &fault.Error{Code: fault.Usage, Op: "borrow", Object: req.Ref, Reason: "this shell is borrowed already, by session " + outer,
			Hint: "leave it with exit first, or add -d and use the new session from another terminal"}
	case outer != "":
		return nil // the hook works: it is at work here
	}
	_, _, err := session.Choose(hook.Machine{Listener: supervisor.Probe(), Library: hook.Built()}, req.Hook)
	return err
}

// raise asks for a session and tells how it goes.
func (a *app) raise(ctx context.Context, client *daemon.Client, req daemon.UpRequest) (*daemon.Hold, error) {
	s := a.ui.begin(req.Name)
	hold, err := client.Up(ctx, req, s.step)
	s.done(err)
	if err != nil {
		return nil, fault.From(err)
	}
	if hold.Skewed != "" {
		a.ui.warn("the daemon is version "+hold.Skewed+", this is "+a.version, "borrownet down --all, then up again")
	}
	a.ui.identity(hold.Status)
	return hold, nil
}

// attend stays in the foreground until the session ends or somebody wants that.
func (a *app) attend(ctx context.Context, client *daemon.Client, hold *daemon.Hold) error {
	ended := make(chan error, 1)
	go func() { ended <- a.follow(hold) }() // ends with the session or hold.Close
	select {
	case <-ctx.Done():
		return a.takeDown(client, hold.Status.Session)
	case err := <-ended:
		if err == nil {
			return nil
		}
		// A lost session is of no use to anybody.
		return errors.Join(err, a.takeDown(client, hold.Status.Session))
	}
}

// follow prints what happens to the session. It returns nil when the session
// was ended, and the reason when it is lost.
func (a *app) follow(hold *daemon.Hold) error {
	var lost *fault.Error
	t := &teller{ui: a.ui, session: hold.Status.Session, last: hold.Status.State}
	why, err := hold.Watch(func(ev daemon.StateEvent) {
		if ev.State == session.Lost {
			lost = ev.Problem
			hold.Close() // makes Watch return
			return
		}
		t.tell(ev)
	})
	switch {
	case lost != nil:
		return lost
	case err != nil:
		return &fault.Error{Code: fault.Laptop, Op: "keep session", Object: hold.Status.Session, Reason: "the daemon has ended", Hint: "borrownet up again", Err: err}
	}
	a.ui.say("session %s is down: %s", hold.Status.Session, why)
	return nil
}

// subshell runs the person's shell in the session and ends the session with it.
func (a *app) subshell(client *daemon.Client, dir string, hold *daemon.Hold, shell program) error {
	name := hold.Status.Session
	go func() { // ends with hold.Close
		t := &teller{ui: a.ui, session: name, brief: true, last: hold.Status.State}
		if _, err := hold.Watch(func(ev daemon.StateEvent) {
			if ev.Problem != nil && ev.State == session.Lost {
				ev.Problem.Hint = "exit, then: " + ev.Problem.Hint
			}
			t.tell(ev)
		}); err != nil {
			a.ui.detail("session %s: %v", name, err)
		}
	}()
	place, err := a.place(client, name)
	if err != nil {
		return errors.Join(err, a.takeDown(client, name))
	}
	a.ui.say("this shell is the pod now; exit ends the session")
	// An interactive shell ignores SIGTERM; what it respects is a hang-up.
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	defer signal.Stop(terminate)
	left := make(chan struct{})
	defer close(left)
	go func() { // ends with this function
		select {
		case <-terminate:
			_ = syscall.Kill(os.Getpid(), syscall.SIGHUP)
		case <-left:
		}
	}()
	err = a.runOwnShell(place, dir, shell)
	return errors.Join(err, a.takeDown(client, name))
}

// takeDown ends a session; one that is gone already is fine.
func (a *app) takeDown(client *daemon.Client, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, err := client.Down(ctx, name, false)
	f, gone := errors.AsType[*fault.Error](err)
	switch {
	case errors.Is(err, daemon.ErrNotRunning), gone && f.Code == fault.NoSession:
		return nil
	case err != nil:
		return err
	}
	a.ui.downed(d)
	return nil
}
