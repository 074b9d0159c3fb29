package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/build"
	"github.com/borrownet/borrownet/cmd/internal/encode"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/gather"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

func (a *app) gather() *cobra.Command {
	var (
		target  targetFlags
		file    string
		offline bool
	)
	cmd := &cobra.Command{
		Use: "gather [--offline]", Short: "make a bundle for a report of a problem, without secrets", Long: gatherLong, Example: gatherExample, Args: noArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			ctx, stop := interruptible()
			defer stop()
			if file == "" {
				file = "borrownet-gather-" + time.Now().Format("20060102-150405") + ".tar.gz"
			}
			return a.gatherInto(ctx, file, &target, offline)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "output-file", "f", "", "`FILE` to write (default borrownet-gather-TIME.tar.gz)")
	f.BoolVar(&offline, "offline", false, "ask no cluster")
	f.StringVar(&target.pod, "pod", "", "`TARGET` to look for too, as doctor does")
	target.addKube(cmd)
	complete(cmd, "pod", target.completeTargets)
	return cmd
}

// gatherInto writes the bundle.
func (a *app) gatherInto(ctx context.Context, file string, target *targetFlags, offline bool) error {
	flags, err := absolute(target.kube)
	if err != nil {
		return err
	}
	var r gather.Redactor
	r.Know(kube.Secrets(flags)...)
	environment := gather.Environment(&r, os.Environ())
	var out bytes.Buffer
	missing, err := gather.Write(ctx, &out, time.Now(), &r, a.parts(ctx, &r, environment, target, offline))
	if err == nil {
		err = os.WriteFile(file, out.Bytes(), 0o600)
	}
	if ctx.Err() != nil {
		return fault.From(context.Canceled)
	}
	if err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "write", Object: file, Reason: cause(err), Err: err, Hint: "borrownet gather --output-file FILE"}
	}
	for _, m := range missing {
		a.ui.say("not in it: %s", line(m))
	}
	a.ui.say("%s is written, for you alone to read: have a look before you pass it on (tar -tzf, tar -xzOf)", file)
	return nil
}

// parts are what goes into the bundle.
func (a *app) parts(ctx context.Context, r *gather.Redactor, environment string, target *targetFlags, offline bool) []gather.Part {
	always := func(text string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return text, nil }
	}
	// Before anything asks for a daemon: what one that was killed has left is swept then.
	log, logErr := "", error(nil)
	if dir, err := rundir.Open(); err == nil {
		defer dir.Remove()
		knowKeys(r, dir)
		log, logErr = optional(dir.Path(rundir.LogName))
	}
	parts := []gather.Part{
		{Name: "daemon.log", Text: func(context.Context) (string, error) { return log, logErr }},
		{Name: "version.txt", Text: always(fmt.Sprintf("borrownet %s %s\n%s", a.version, build.Platform(), distribution()))},
		{Name: "environment.txt", Text: always(environment)},
		{Name: "doctor.json", Text: func(ctx context.Context) (string, error) {
			checks, up := a.checkMachine(ctx)
			if !offline {
				checks = append(checks, checkPaths(ctx, up)...)
				more, err := a.checkCluster(ctx, target)
				if err != nil {
					return "", err
				}
				checks = append(checks, more...)
			}
			return encoded(checks)
		}},
	}
	sessions := a.ownSessions(ctx)
	if len(sessions) > 0 {
		parts = append(parts, gather.Part{Name: "sessions.json", Text: func(context.Context) (string, error) { return encoded(sessions) }})
	}
	if !offline {
		for _, st := range sessions {
			parts = append(parts, agentLog(st, target.kube))
		}
	}
	return parts
}

// knowKeys makes the private keys of sessions known.
func knowKeys(r *gather.Redactor, dir *rundir.Dir) {
	r.Know(session.NewKeys(dir).Secrets()...)
}

// agentLog is the log of a session's agent, if its cluster gives it.
func agentLog(st session.Status, flags kube.Flags) gather.Part {
	name := strings.Join([]string{"agents/" + st.Session, st.Target.Namespace, st.Target.Pod, st.Agent.Container}, "_") + ".log"
	return gather.Part{Name: name, Text: func(ctx context.Context) (string, error) {
		flags.Context = st.Target.Context
		flags, err := absolute(flags)
		if err != nil {
			return "", err
		}
		cluster, err := connect(flags)
		if err != nil {
			return "", session.Explain(err)
		}
		defer cluster.Close()
		c, ok := cluster.(interface {
			AgentLog(ctx context.Context, t *kube.Target, container string) (string, error)
		})
		if !ok {
			return "", errors.New("the demo's agents have no log of their own")
		}
		return c.AgentLog(ctx, &kube.Target{Namespace: st.Target.Namespace, Pod: st.Target.Pod}, st.Agent.Container)
	}}
}

func encoded(v any) (string, error) {
	text, err := encode.Text("json", v)
	return string(text), err
}

// optional reads a file that need not be there.
func optional(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// distribution says what this machine runs, as far as it says so itself.
func distribution() string {
	out := ""
	for _, path := range []string{"/proc/version", "/etc/os-release"} {
		if text, err := os.ReadFile(path); err == nil {
			out += string(text)
		}
	}
	return out
}
