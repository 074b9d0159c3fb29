package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/cmd/internal/settings"
)

// maxRaising bounds the sessions of a stack that are set up at a time.
const maxRaising = 10

// stackFile adds the flag that names the file of a stack.
func stackFile(cmd *cobra.Command, path *string, usage string) {
	cmd.Flags().StringVarP(path, "file", "f", "", "`FILE` "+usage)
	if err := cmd.MarkFlagFilename("file", "yaml", "yml"); err != nil {
		panic(err) // the flag exists: unreachable
	}
}

// services returns the names of the stack's services that a command is about: all, or
// those named.
func services(file settings.Settings, only []string) ([]string, error) {
	all := slices.Sorted(maps.Keys(file.Sessions))
	if len(all) == 0 {
		return nil, usage(file.Path()+" describes no sessions", "sessions: {api: {namespace: shop}}")
	}
	for _, name := range only {
		if !slices.Contains(all, name) {
			return nil, usage(fmt.Sprintf("%s describes no session %s", file.Path(), name), "it has: "+strings.Join(all, ", "))
		}
	}
	if len(only) > 0 {
		return only, nil
	}
	return all, nil
}

// of returns t for a service of a stack: what the file says of it, then what it says for
// all, then the flags.
func (t targetFlags) of(file settings.Settings, name string) targetFlags {
	svc := file.Sessions[name]
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	t.session, t.container = name, svc.Container
	t.pod = first(svc.Pod, name)
	t.image = first(t.image, svc.AgentImage)
	t.hook = first(svc.Hook, t.hook)
	t.stay, t.direct = t.stay || svc.Stay, t.direct || svc.Direct
	t.mirror.ports = slices.Concat(svc.Mirror, t.mirror.ports)
	t.kube.Namespace = first(svc.Namespace, file.Namespace, t.kube.Namespace)
	t.kube.Context = first(svc.Context, file.Context, t.kube.Context)
	t.kube.Kubeconfig = first(file.Beside(svc.Kubeconfig), file.Beside(file.Kubeconfig), t.kube.Kubeconfig)
	file.Routing = merge(file.Routing, svc.Routing)
	t.file = &file
	return t
}

// merge adds to what is for all sessions what is for one.
func merge(all, one settings.Routing) settings.Routing {
	out := settings.Routing{
		Publish: slices.Concat(all.Publish, one.Publish), Local: slices.Concat(all.Local, one.Local),
		RemoteLocalhost: slices.Concat(all.RemoteLocalhost, one.RemoteLocalhost), Metadata: slices.Concat(all.Metadata, one.Metadata), Hosts: maps.Clone(all.Hosts), Redirect: maps.Clone(all.Redirect),
	}
	if out.Hosts == nil {
		out.Hosts = map[string]settings.Addrs{}
	}
	if out.Redirect == nil {
		out.Redirect = map[string]string{}
	}
	maps.Copy(out.Hosts, one.Hosts)
	maps.Copy(out.Redirect, one.Redirect)
	return out
}

// raised is what became of a session of a stack.
type raised struct {
	name string
	hold *daemon.Hold // nil if it was up already, or did not come up
	err  error
}

// upStack borrows what the file describes, all at once, and stays with it unless
// detached.
func (a *app) upStack(path string, only []string, flags targetFlags, detach bool, command string) error {
	file, err := settings.Load(path)
	if err != nil {
		return err
	}
	names, err := services(file, only)
	if err != nil {
		return err
	}
	reqs := make([]session.Request, len(names))
	for i, name := range names {
		t := flags.of(file, name)
		if reqs[i], err = t.request(command); err != nil {
			return inStack(file, name, err)
		}
		if err := usable(reqs[i], detach); err != nil {
			return err
		}
	}
	return a.setUp(several{
		names: names, reqs: reqs, detach: detach,
		later: "borrownet run SERVICE, or borrownet run --session " + names[0] + " -- COMMAND, and at the end: borrownet down -f " + path,
		now:   "borrownet run SERVICE; SIGINT or SIGTERM ends the stack",
	})
}

// several are sessions that are set up together.
type several struct {
	names  []string
	reqs   []session.Request
	detach bool
	// What there is to do next: for who leaves them, and for who stays with them.
	later, now string
}

// setUp sets sessions up, all at once, and stays with them unless they are left.
func (a *app) setUp(s several) error {
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	ctx, stop := interruptible()
	defer stop()
	list := a.raiseAll(ctx, client, s.names, s.reqs, s.detach)
	failed := a.failures(list)
	switch {
	case ctx.Err() != nil && !s.detach:
		return errors.Join(fault.From(context.Canceled), a.dropAll(client, list))
	case failed != nil && s.detach:
		return failed
	case failed != nil:
		return errors.Join(failed, a.dropAll(client, list))
	}
	if s.detach {
		a.ui.say("next: %s", s.later)
		return nil
	}
	a.ui.say("next: %s", s.now)
	return a.attendAll(ctx, client, list)
}

// inStack says which session of a file an error is about.
func inStack(file settings.Settings, name string, err error) error {
	f := *fault.From(err)
	f.Op, f.Object = "read", file.Path()+": session "+name
	return &f
}

// raiseAll sets sessions up, and shows how it goes.
func (a *app) raiseAll(ctx context.Context, client *daemon.Client, names []string, reqs []session.Request, detach bool) []raised {
	b := newBoard(a.ui, names)
	defer b.close()
	out := make([]raised, len(names))
	slots := make(chan struct{}, maxRaising)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			b.begin(i)
			hold, err := client.Up(ctx, daemon.UpRequest{Request: reqs[i], Owned: !detach}, func(step string) { b.step(i, step) })
			if err != nil && a.isUp(ctx, client, reqs[i], err) {
				out[i] = raised{name: name}
				b.done(i, "is up already", nil)
				return
			}
			out[i] = raised{name: name, hold: hold, err: err}
			if err != nil {
				b.done(i, "", fault.From(err))
				return
			}
			st := hold.Status
			a.ui.emit(event{Session: name, Ready: &st})
			text := "pod " + st.Target.Namespace + "/" + st.Target.Pod + ", " + roundTrip(st)
			if m := st.Mesh; m != nil && m.Identity != "" {
				text += ", " + identityText(*m)
			}
			b.done(i, text, nil)
		})
	}
	wg.Wait()
	return out
}

// isUp reports whether a session could not be set up because it is up: an `up` that is
// repeated does what is left to do.
func (a *app) isUp(ctx context.Context, client *daemon.Client, req session.Request, err error) bool {
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.SessionExists {
		return false
	}
	st, err := client.Status(ctx, req.Name)
	return err == nil && st.State == session.Ready && st.Target.Ref == req.Ref &&
		(req.Kube.Namespace == "" || req.Kube.Namespace == st.Target.Namespace) && (req.Kube.Context == "" || req.Kube.Context == st.Target.Context)
}

// failures explains what did not come up and returns the last of it, which is explained
// by who gets it.
func (a *app) failures(list []raised) error {
	var failed []raised
	for _, r := range list {
		if r.err != nil {
			failed = append(failed, r)
		}
	}
	for i, r := range failed {
		f := *fault.From(r.err)
		f.Reason = f.Error()
		f.Op, f.Object = "session", r.name
		if i == len(failed)-1 {
			return &f
		}
		a.ui.fail(&f)
	}
	return nil
}

// attendAll stays until all sessions have ended or somebody wants that.
func (a *app) attendAll(ctx context.Context, client *daemon.Client, list []raised) error {
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for _, r := range list {
		if r.hold == nil {
			continue
		}
		t := &teller{ui: a.ui, session: r.name, brief: true, last: r.hold.Status.State}
		wg.Go(func() { // ends with the session or its hold's Close
			if why, err := r.hold.Watch(t.tell); err == nil {
				a.ui.say("session %s is down: %s", r.name, why)
			}
		})
	}
	go func() { // ends with what is watched
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	err := a.dropAll(client, list)
	<-ended
	return err
}

// dropAll ends the sessions that this command has set up.
func (a *app) dropAll(client *daemon.Client, list []raised) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, r := range list {
		if r.hold == nil {
			continue
		}
		wg.Go(func() {
			errs[i] = a.takeDown(client, r.name)
			r.hold.Close()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
