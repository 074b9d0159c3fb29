package main

import (
	"errors"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/demo"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// connect returns the cluster that flags select: the demo's world where they
// name it and nothing else, and one is running, else what the kubeconfig says.
func connect(flags kube.Flags) (session.Cluster, error) {
	running := demoRunning()
	if running != nil && selectsDemo(flags) {
		return demo.NewClient(running, flags), nil
	}
	c, err := session.Kubernetes(flags)
	if k, ok := errors.AsType[*kube.Error](err); ok {
		return nil, hintDemo(k, flags, running != nil)
	}
	return c, err
}

// selectsDemo reports whether flags can mean the demo's world.
func selectsDemo(flags kube.Flags) bool {
	return flags.Context == demo.Context && flags.Kubeconfig == "" && flags.Cluster == "" && flags.Server == ""
}

// hintDemo adds the demo to the hint of an error about the kubeconfig, where
// the demo may be what was meant.
func hintDemo(k *kube.Error, flags kube.Flags, running bool) *kube.Error {
	out := *k
	switch {
	case selectsDemo(flags):
		out.Hint = "borrownet demo --keep starts the built-in cluster of that name"
	case running && flags.Context == "" && flags.Kubeconfig == "":
		out.Hint = "a demo is running, to use it add --context " + demo.Context + "; else " + k.Hint
	}
	return &out
}

// demoRunning returns the runtime directory if a demo is served in it, else
// nil.
func demoRunning() *rundir.Dir {
	dir, err := rundir.Open()
	if err != nil {
		return nil
	}
	if !demo.Running(dir) {
		dir.Remove()
		return nil
	}
	return dir
}

// keptFile reports the files in the runtime directory that are not the
// daemon's own.
func keptFile(name string) bool { return session.IsKey(name) || demo.IsFile(name) }
