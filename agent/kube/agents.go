package kube

import (
	"context"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// States of an agent.
const (
	StateWaiting    = "waiting"
	StateRunning    = "running"
	StateTerminated = "terminated"
)

// AgentState describes an agent of ours on a pod, running or not.
type AgentState struct {
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	UID       string    `json:"uid"`       // of the pod
	Container string    `json:"container"` // name of the ephemeral container
	Image     string    `json:"image"`
	ClientKey string    `json:"clientKey"` // public key of the client it serves
	NetRaw    bool      `json:"netRaw"`
	State     string    `json:"state"`    // waiting, running or terminated
	Reason    string    `json:"reason"`   // why it waits or ended, as the kubelet says it
	ExitCode  int32     `json:"exitCode"` // of a terminated agent
	Started   time.Time `json:"started"`  // zero while it waits
}

// Target returns what Dial and Hello need to reach the agent.
func (s AgentState) Target() *Target {
	return &Target{Namespace: s.Namespace, Pod: s.Pod, UID: s.UID}
}

// Agents lists the agents on the target's pod, oldest first. A pod that no
// longer exists has none.
func (c *Client) Agents(ctx context.Context, t *Target) ([]AgentState, error) {
	pod, err := c.getPod(ctx, t.Namespace, t.Pod)
	if apierrors.IsNotFound(err) || err == nil && string(pod.UID) != t.UID {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain("list agents on", "pod "+t.Namespace+"/"+t.Pod, err)
	}
	return agentsOf(pod), nil
}

// ListAgents lists the agents on all pods of a namespace; "" means the
// client's namespace.
func (c *Client) ListAgents(ctx context.Context, namespace string) ([]AgentState, error) {
	if namespace == "" {
		namespace = c.namespace
	}
	pods, err := c.listPods(ctx, namespace, "")
	if err != nil {
		return nil, c.explain("list agents in", "namespace "+namespace, err)
	}
	var out []AgentState
	for i := range pods {
		out = append(out, agentsOf(&pods[i])...)
	}
	return out, nil
}

func agentsOf(pod *api.Pod) []AgentState {
	var out []AgentState
	for i := range pod.Spec.EphemeralContainers {
		ec := &pod.Spec.EphemeralContainers[i]
		if !isAgent(ec) {
			continue
		}
		s := AgentState{
			Namespace: pod.Namespace, Pod: pod.Name, UID: string(pod.UID), Container: ec.Name, Image: ec.Image,
			ClientKey: argument(ec.Args, "--client-key"), NetRaw: hasNetRaw(ec), State: StateWaiting,
		}
		s.setState(statusOf(pod, ec.Name))
		out = append(out, s)
	}
	return out
}

func (s *AgentState) setState(status *api.ContainerStatus) {
	switch {
	case status == nil:
	case status.State.Running != nil:
		s.State, s.Started = StateRunning, status.State.Running.StartedAt.Time
	case status.State.Terminated != nil:
		t := status.State.Terminated
		s.State, s.Started, s.ExitCode = StateTerminated, t.StartedAt.Time, t.ExitCode
		s.Reason = strings.TrimSuffix(t.Reason+": "+oneLine(t.Message), ": ")
	case status.State.Waiting != nil:
		w := status.State.Waiting
		s.Reason = strings.TrimSuffix(w.Reason+": "+oneLine(w.Message), ": ")
	}
}

// argument returns what follows name in args.
func argument(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}
