package main

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/borrownet/borrownet/cmd/internal/compose"
	"github.com/borrownet/borrownet/cmd/internal/container"
	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// prepare gives the engine the image of the containers that are added.
func (c *composeRun) prepare(ctx context.Context) (string, error) {
	e, err := container.Find(ctx, os.Environ())
	if err != nil {
		return "", err
	}
	return loadImage(ctx, e)
}

// borrowPods borrows the pods that are not yet.
func (c *composeRun) borrowPods(ctx context.Context, name string) error {
	up, err := c.sessions(ctx)
	if err != nil {
		return err
	}
	for _, b := range c.list {
		if st, ok := up[b.session]; ok && st.State != session.Lost {
			if st.Container == nil {
				return &fault.Error{Code: fault.SessionExists, Op: "use session", Object: b.session, Reason: "containers cannot join it",
					Hint: "borrownet down " + b.session + ", then again"}
			}
			continue
		}
		t := c.target
		t.pod, t.session = b.ref, b.session
		if b.namespace != "" {
			t.kube.Namespace = b.namespace
		}
		t.mirror.ports, t.mirror.added = b.mirror, len(b.mirror) > 0
		req, err := t.request(name)
		if err != nil {
			return err
		}
		req.Docker = &session.Docker{}
		hold, err := c.raise(ctx, c.client, daemon.UpRequest{Request: req})
		if err != nil {
			return err
		}
		c.ui.mirrorProblems(hold.Status)
		_ = hold.Close() // the session is nobody's, so it stays
	}
	return nil
}

// sessions returns the sessions that there are, by name.
func (c *composeRun) sessions(ctx context.Context) (map[string]session.Status, error) {
	found, err := c.client.List(ctx, false)
	if err != nil && !errors.Is(err, daemon.ErrNotRunning) {
		return nil, err
	}
	out := map[string]session.Status{}
	for _, st := range found {
		out[st.Session] = st
	}
	return out, nil
}

// rewrite returns the file in which the services are pods. What only a session
// knows is missing if that is not up.
func (c *composeRun) rewrite(ctx context.Context, file []byte, image string) ([]byte, error) {
	up, err := c.sessions(ctx)
	if err != nil {
		return nil, err
	}
	if image == "" {
		image = container.AnyImage // for commands that start nothing
	}
	var list []compose.Borrowed
	for _, b := range c.list {
		out := compose.Borrowed{
			Service: b.name, Session: b.session, Image: image,
			Socket: c.dir.Path(session.GuestSocket(b.session)), Resolver: session.GuestResolver().String(), TUN: container.HasTUN(),
		}
		if st, ok := up[b.session]; ok && st.State != session.Lost {
			place, err := c.place(c.client, b.session)
			if err != nil {
				return nil, err
			}
			out.Instance = strconv.FormatInt(st.Since.UnixNano(), 36)
			out.Sysctls, out.Files = container.Sysctls(session.HasIPv6(st.Target.PodIPs)), place.Files
			out.Env = launch.Compose(nil, place, launch.Rules{}).Borrowed
		}
		list = append(list, out)
	}
	text, warnings, err := compose.Rewrite(file, list)
	if err != nil {
		return nil, usage(err.Error(), c.tool.String()+" config shows the file as it is without borrownet")
	}
	for _, w := range warnings {
		c.ui.warn(w, "")
	}
	return text, nil
}

// use runs the compose tool on text, which has the pods' environment in it: it is
// kept in memory, where only this user reads it.
func (c *composeRun) use(text []byte, args []string) (int, error) {
	memory, err := c.dir.Memory()
	if err != nil {
		return 0, err
	}
	file, err := memory.WriteTemp("compose-*.yml", text)
	if err != nil {
		return 0, &fault.Error{Code: fault.Laptop, Op: "write the compose file", Reason: cause(err), Err: err, Hint: "is there room? df -h " + memory.String()}
	}
	defer os.Remove(file)
	return c.tool.Run(file, c.files, args)
}

// blame says why a container could not join, which the compose tool cannot know.
func (c *composeRun) blame() {
	ctx, stop := interruptible()
	defer stop()
	up, err := c.sessions(ctx)
	if err != nil {
		return
	}
	for _, b := range c.list {
		st, ok := up[b.session]
		if ok && st.Container != nil && st.Container.Problem != nil {
			c.ui.warn("service "+b.name+": "+st.Container.Problem.Error(), st.Container.Problem.Hint)
		}
	}
}

// giveBack ends the sessions of the project and removes what was given to the engine.
func (c *composeRun) giveBack() error {
	var errs []error
	for _, b := range c.list {
		errs = append(errs, c.takeDown(c.client, b.session))
	}
	ctx, stop := interruptible()
	defer stop()
	if e, err := container.Find(ctx, os.Environ()); err == nil {
		container.RemoveImages(ctx, e, "")
	}
	return errors.Join(errs...)
}
