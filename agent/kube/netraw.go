package kube

import (
	"context"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Mirroring takes CAP_NET_RAW, for the moment in which a helper beside the agent
// opens a packet socket. The agent itself never has it: the helper's file in the
// image does (capabilities(7)), if the container's bounding set has it and
// privileges may be gained from files. So there are two ways to ask.
const netRaw = "NET_RAW"

// otherDefaults are what container runtimes give besides NET_RAW to a container
// that asks for nothing.
func otherDefaults() []string {
	return []string{
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
		"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	}
}

// addNetRaw asks for exactly NET_RAW. Pod Security "baseline" refuses that.
func addNetRaw(ec *api.EphemeralContainer) {
	yes := true
	ec.SecurityContext.AllowPrivilegeEscalation = &yes
	ec.SecurityContext.Capabilities = &api.Capabilities{Drop: []string{"ALL"}, Add: []string{netRaw}}
}

// keepNetRaw asks for what is left of the runtime's defaults without all others:
// NET_RAW, if it is among them. "baseline" admits that.
func keepNetRaw(ec *api.EphemeralContainer) {
	addNetRaw(ec)
	ec.SecurityContext.Capabilities = &api.Capabilities{Drop: otherDefaults()}
}

func hasNetRaw(ec *api.EphemeralContainer) bool {
	if ec.SecurityContext == nil || ec.SecurityContext.Capabilities == nil {
		return false
	}
	caps := ec.SecurityContext.Capabilities
	return slices.Contains(caps.Add, netRaw) || slices.Equal(caps.Drop, otherDefaults())
}

// ErrNetRaw says that an agent that may capture cannot be had, and why. One that
// may not might.
var ErrNetRaw = errors.New("the agent may not capture")

// netRawError is an ErrNetRaw that says what its cause says.
type netRawError struct{ error }

func (e netRawError) Unwrap() error { return e.error }

func (netRawError) Is(target error) bool { return target == ErrNetRaw }

// cannotCapture returns why an agent like s can have no NET_RAW whoever allows it.
func (s AgentSpec) cannotCapture(object string) error {
	if !s.NetRaw || s.Image != TargetImage {
		return nil
	}
	return netRawError{&Error{Op: "mirror", Object: object,
		Reason: "with --agent-image target the agent comes without its capture helper, whose file needs a capability that only an image can give it",
		Hint:   "use the agent's own image: --agent-image REF, which `make agent-image` builds"}}
}

// ask lets the API server judge want, which is changed to the way of asking
// for NET_RAW that it admits.
func (c *Client) ask(ctx context.Context, pod *api.Pod, want *api.EphemeralContainer, capturing bool) (*api.Pod, error) {
	after, err := c.patch(ctx, pod, want, true)
	if _, refused := errors.AsType[*apierrors.StatusError](err); !refused || !capturing {
		return after, err
	}
	keepNetRaw(want)
	if after, err := c.patch(ctx, pod, want, true); err == nil {
		return after, nil
	}
	addNetRaw(want)
	return nil, err
}

// explainNetRaw tells a refusal of NET_RAW from others.
func (a *attachment) explainNetRaw(err error) error {
	err = a.explain("attach to", a.object(), err)
	var e *Error
	if !a.spec.NetRaw || !errors.As(err, &e) || !strings.HasPrefix(e.Reason, "policy ") {
		return err
	}
	e.Op, e.Hint = "mirror", "mirroring takes CAP_NET_RAW for a moment: ask the policy's owner to allow it"
	return netRawError{err}
}
