package kube

import (
	"context"
	"errors"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
)

// New returns a client for the cluster that f selects. It reads the
// kubeconfig but does not talk to the cluster.
func New(f Flags) (*Client, error) { return nil, errors.ErrUnsupported }

// Close drops idle connections. Carriers stay open.
func (c *Client) Close() error { return nil }

// Resolve finds the pod that ref means: a pod, TYPE/NAME as kubectl writes it,
// or the bare name of a pod, workload or service. container may be empty.
func (c *Client) Resolve(ctx context.Context, ref, container string) (*Target, error) {
	return nil, errors.ErrUnsupported
}

// Attach makes an agent run in the target and returns its greeting.
func (c *Client) Attach(ctx context.Context, t *Target, spec AgentSpec, progress func(step string)) (*Agent, error) {
	return nil, errors.ErrUnsupported
}

// Plan returns, as YAML, what Attach would add to the pod.
func (c *Client) Plan(ctx context.Context, t *Target, spec AgentSpec) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// Dial connects to a TCP port on the pod's loopback.
func (c *Client) Dial(ctx context.Context, t *Target, port uint16) (Carrier, error) {
	return nil, errors.ErrUnsupported
}

// DialVia is Dial over one protocol, without fallback.
func (c *Client) DialVia(ctx context.Context, t *Target, port uint16, protocol string) (Carrier, error) {
	return nil, errors.ErrUnsupported
}

// Hello reads the greeting that the agent in container printed.
func (c *Client) Hello(ctx context.Context, t *Target, container string) (wire.Hello, error) {
	return wire.Hello{}, errors.ErrUnsupported
}

// AgentState describes an agent of ours on a pod, running or not.
type AgentState struct {
	Namespace string
	Pod       string
	UID       string // of the pod
	Container string // name of the ephemeral container
	Image     string
	ClientKey string // public key of the client it serves
	NetRaw    bool
	State     string    // "waiting", "running" or "terminated"
	Reason    string    // why it waits or ended, as the kubelet says it
	ExitCode  int32     // of a terminated agent
	Started   time.Time // zero while it waits
}

// Agents lists the agents on the target's pod, oldest first.
func (c *Client) Agents(ctx context.Context, t *Target) ([]AgentState, error) {
	return nil, errors.ErrUnsupported
}

// ListAgents lists the agents on all pods of a namespace.
func (c *Client) ListAgents(ctx context.Context, namespace string) ([]AgentState, error) {
	return nil, errors.ErrUnsupported
}

// Access is one permission that borrownet uses.
type Access struct {
	Verb     string
	Group    string
	Resource string // resource or resource/subresource
	Allowed  bool
	Optional bool   // only some ways to name a target need it
	Why      string // the authorizer's reason, often empty
}

// CheckAccess asks the API server which of the permissions that borrownet
// needs the user has in a namespace.
func (c *Client) CheckAccess(ctx context.Context, namespace string) ([]Access, error) {
	return nil, errors.ErrUnsupported
}
