package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
)

// replicated is a cluster that knows the pods of a workload.
type replicated interface {
	Replicas(ctx context.Context, ref string) (workload string, pods []string, err error)
}

var _ replicated = (*kube.Client)(nil)

// upReplicas mirrors every replica of the target: a session for each pod there is now. One
// that went to another pod might mirror one twice, so each stays with its own.
func (a *app) upReplicas(target targetFlags, detach bool, command string) error {
	if len(target.mirror.ports) == 0 {
		return usage("--all-replicas is for mirroring", command+" --pod deploy/api --mirror 8080:3000 --all-replicas")
	}
	req, err := target.request(command)
	if err != nil {
		return err
	}
	if err := usable(req, detach); err != nil {
		return err
	}
	names, reqs, err := a.eachReplica(req)
	if err != nil {
		return err
	}
	a.ui.say("a session ends with its pod, and pods that come later are not mirrored: borrownet up again then")
	return a.setUp(several{
		names: names, reqs: reqs, detach: detach,
		later: "borrownet run --session " + names[0] + " -- COMMAND, and at the end: borrownet down NAME for each of " + strings.Join(names, ", "),
		now:   "borrownet run --session " + names[0] + " -- COMMAND; SIGINT or SIGTERM ends all",
	})
}

// eachReplica makes requests for sessions of all replicas of one for a target.
func (a *app) eachReplica(req session.Request) ([]string, []session.Request, error) {
	ctx, stop := interruptible()
	defer stop()
	flags := req.Kube
	flags.Stdin = interactive()
	cluster, err := connect(flags)
	if err != nil {
		return nil, nil, session.Explain(err)
	}
	defer cluster.Close()
	c, ok := cluster.(replicated)
	if !ok {
		return nil, nil, usage("--all-replicas: the demo has one pod of each", "leave it out")
	}
	workload, pods, err := c.Replicas(ctx, req.Ref)
	if err != nil {
		return nil, nil, session.Explain(err)
	}
	names, reqs := perReplica(req, workload, pods)
	for _, name := range names {
		if !sessionName.MatchString(name) {
			return nil, nil, &fault.Error{Code: fault.Usage, Op: "name session", Object: name, Reason: "that is too long for a name", Hint: "give a shorter one with --session; each session has the end of its pod's name behind it"}
		}
	}
	return names, reqs, nil
}

// perReplica returns a session for each pod, named after it. Programs can be in the first;
// the others only mirror, and have no namespace.
func perReplica(req session.Request, workload string, pods []string) ([]string, []session.Request) {
	_, base, _ := strings.Cut(workload, "/")
	base = cmp.Or(req.Name, base)
	var (
		names []string
		reqs  []session.Request
	)
	for i, pod := range pods {
		name := pod
		if base != "" {
			name = fmt.Sprintf("%s-%s", base, pod[strings.LastIndexByte(pod, '-')+1:])
		}
		r := req
		r.Name, r.Ref, r.Stay = name, "pod/"+pod, true
		if i > 0 {
			r.Hook, r.RemoteLocalhost = session.Rung(hook.None), nil
		}
		names, reqs = append(names, name), append(reqs, r)
	}
	return names, reqs
}
