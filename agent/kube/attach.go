package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/agent/wire"
)

const strategicMerge = "application/strategic-merge-patch+json"

// attachment is one Attach on its way.
type attachment struct {
	*Client
	target   *Target
	spec     AgentSpec
	progress func(string)
	image    string // of the agent's container
	placed   bool   // the pod has an agent with the client's key, or may have
}

// Attach makes an agent that fits spec run in the target and returns its
// greeting. An agent that is there already is taken; else one is added, after
// the API server agreed to it in a dry run and said that the user may do all
// that follows, because an ephemeral container can never be removed again.
// progress, which may be nil, is told each step in a few words. An error that
// comes once the pod may have an agent with the client's key is an ErrPlaced.
func (c *Client) Attach(ctx context.Context, t *Target, spec AgentSpec, progress func(step string)) (*Agent, error) {
	spec, err := spec.complete()
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(string) {}
	}
	a := &attachment{Client: c, target: t, spec: spec, progress: progress}
	agent, err := a.run(ctx)
	if err == nil {
		return agent, nil
	}
	err = c.explain("attach to", a.object(), err)
	if a.placed {
		err = placedError{err}
	}
	return nil, err
}

// ErrPlaced says that Attach failed when the pod had an agent for the client's
// key, or may have had: the next Attach with the same key goes on with it.
var ErrPlaced = errors.New("the pod has an agent for this key")

// placedError is an ErrPlaced that says what its cause says.
type placedError struct{ error }

func (e placedError) Unwrap() error { return e.error }

func (placedError) Is(target error) bool { return target == ErrPlaced }

func (a *attachment) object() string { return "pod " + a.target.Namespace + "/" + a.target.Pod }

func (a *attachment) run(ctx context.Context) (*Agent, error) {
	if err := a.spec.cannotCapture(a.object()); err != nil {
		return nil, err
	}
	p := a.startProbe(ctx, a.target)
	defer p.end()
	pod, err := a.targetPod(ctx, "attach to", a.target)
	if err != nil {
		return nil, err
	}
	want, note, err := a.build(ctx, pod, a.target.Container, a.spec)
	if err != nil {
		return nil, err
	}
	a.image = want.Image
	for _, text := range []string{note, proxyTrouble(pod), headroom(pod)} {
		if text != "" {
			a.progress(text)
		}
	}
	name, reused := reusable(pod, want)
	if reused {
		a.placed = true
		a.progress("taking the agent that is there: " + name)
		agent, err := a.await(ctx, pod, name, true)
		switch {
		case errors.Is(err, errEnded):
			a.progress("it has just ended")
		case err != nil || agent.Stdio || !p.answer():
			return agent, err
		}
	}
	if p.answer() {
		a.progress(noteStdio)
		a.spec.Stdio = true
		takeStdio(want)
	}
	if pod, err = a.add(ctx, pod, want); err != nil {
		return nil, err
	}
	return a.await(ctx, pod, want.Name, false)
}

// reusable returns the newest agent on pod that does what want asks for and
// has not ended. One that still waits for its image counts: another with the
// same image would wait just the same.
func reusable(pod *api.Pod, want *api.EphemeralContainer) (name string, ok bool) {
	for i := len(pod.Spec.EphemeralContainers) - 1; i >= 0; i-- {
		ec := &pod.Spec.EphemeralContainers[i]
		if !serves(ec, want) {
			continue
		}
		if s := statusOf(pod, ec.Name); s == nil || s.State.Terminated == nil {
			return ec.Name, true
		}
	}
	return "", false
}

// statusOf returns the status of an ephemeral container, nil if it has none yet.
func statusOf(pod *api.Pod, name string) *api.ContainerStatus {
	for i := range pod.Status.EphemeralContainerStatuses {
		if pod.Status.EphemeralContainerStatuses[i].Name == name {
			return &pod.Status.EphemeralContainerStatuses[i]
		}
	}
	return nil
}

// add puts want on the pod and returns the pod as it is then.
func (a *attachment) add(ctx context.Context, pod *api.Pod, want *api.EphemeralContainer) (*api.Pod, error) {
	a.progress("asking the cluster whether the agent is allowed")
	if err := a.requireAccess(ctx, a.target.Namespace, a.spec); err != nil {
		return nil, err
	}
	if _, err := a.ask(ctx, pod, want, a.spec.NetRaw); err != nil {
		return nil, a.explainNetRaw(err)
	}
	a.progress("adding ephemeral container " + want.Name)
	after, err := a.patch(ctx, pod, want, false)
	_, refused := errors.AsType[*apierrors.StatusError](err)
	a.placed = a.placed || !refused // without an answer it may have happened
	if err != nil {
		return nil, err
	}
	a.log.Info("added ephemeral container", "target", a.target.Namespace+"/"+a.target.Pod, "container", want.Name, "image", want.Image)
	return after, nil
}

// patch adds one ephemeral container behind those that pod has, or pretends
// to. Without the order a strategic merge would put it first.
func (c *Client) patch(ctx context.Context, pod *api.Pod, want *api.EphemeralContainer, dryRun bool) (*api.Pod, error) {
	type name struct {
		Name string `json:"name"`
	}
	order := make([]name, 0, len(pod.Spec.EphemeralContainers)+1)
	for _, ec := range pod.Spec.EphemeralContainers {
		order = append(order, name{ec.Name})
	}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{
		"$setElementOrder/ephemeralContainers": append(order, name{want.Name}),
		"ephemeralContainers":                  []any{want},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode ephemeral container: %w", err)
	}
	query := url.Values{"fieldManager": {FieldManager}}
	if dryRun {
		query.Set("dryRun", metav1.DryRunAll)
	}
	after := new(api.Pod)
	err = c.do(ctx, request{
		verb: "patch", resource: "pods", namespace: pod.Namespace, name: pod.Name, subresource: "ephemeralcontainers",
		query: query, contentType: strategicMerge, body: body,
	}, after)
	switch {
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "could not find the requested resource"):
		return nil, &Error{Op: "attach to", Object: "pod " + pod.Namespace + "/" + pod.Name, Err: err,
			Reason: "the cluster has no ephemeral containers: it is older than Kubernetes 1.25", Hint: c.kubectl("", "version")}
	case apierrors.IsNotFound(err), err == nil && after.UID != pod.UID:
		return nil, c.gone("attach to", &Target{Namespace: pod.Namespace, Pod: pod.Name, Workload: workloadOf(pod)})
	case err != nil:
		return nil, err
	}
	return after, nil
}

// await waits until the agent in container name runs and has said hello.
func (a *attachment) await(ctx context.Context, pod *api.Pod, name string, reused bool) (*Agent, error) {
	limit := a.spec.PullTimeout + startTimeout
	if a.fromTarget() {
		limit += sendTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	if err := a.awaitRunning(ctx, pod, name); err != nil {
		return nil, err
	}
	takes := takesStdio(pod, name)
	hello, err := a.greeting(ctx, name, reused, takes)
	switch {
	case err == nil:
		return &Agent{Container: name, Hello: hello, Reused: reused, Stdio: takes}, nil
	case errors.Is(err, errNoHello):
		return nil, a.silent(ctx, name, reused)
	case errors.Is(err, errSlow):
		return nil, a.slow(pod, name)
	case errors.Is(err, errOtherProtocol):
		e := &Error{Op: "attach to", Object: a.object(), Reason: err.Error(), Err: err,
			Hint: "use an agent image of this client's version: --agent-image REF"}
		if a.fromTarget() {
			e.Hint = "put the borrownet-agent that was built with this client beside it"
		}
		return nil, e
	}
	return nil, err
}

// silent explains why the agent's output ended without a greeting.
func (a *attachment) silent(ctx context.Context, name string, reused bool) error {
	pod, err := a.getPod(ctx, a.target.Namespace, a.target.Pod)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeoutCause(ctx, stateGrace, errNoHello)
	defer cancel()
	for {
		if s := statusOf(pod, name); s != nil && s.State.Terminated != nil {
			if reused {
				return errEnded
			}
			return a.ended(ctx, name, s.State.Terminated)
		}
		next, err := a.nextChange(soon, pod)
		if errors.Is(context.Cause(soon), errNoHello) {
			break
		}
		if err != nil {
			return err
		}
		pod = next
	}
	return &Error{Op: "attach to", Object: a.object(),
		Reason: fmt.Sprintf("container %s runs image %q but does not speak like an agent", name, a.image),
		Hint:   "is that the image of borrownet's agent? " + a.kubectl(a.target.Namespace, "logs "+a.target.Pod+" -c "+name)}
}

// Hello reads the greeting that the agent in container printed.
func (c *Client) Hello(ctx context.Context, t *Target, container string) (wire.Hello, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errSlow)
	defer cancel()
	h, err := c.readHello(ctx, t, container, helloTimeout, nil)
	return h, c.explain("read the greeting of", "agent "+container+" in pod "+t.Namespace+"/"+t.Pod, err)
}
