package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

var (
	errSlow    = fmt.Errorf("the agent is not up yet: %w", context.DeadlineExceeded)
	errPulling = fmt.Errorf("the image is not there yet: %w", context.DeadlineExceeded)
	errEnded   = errors.New("the agent has ended")
)

// startTimeout is how long a node may take for all but the image.
const startTimeout = 2 * time.Minute

// stateGrace is how much later than the end of its output the end of a
// container may show in the pod's status.
const stateGrace = 3 * time.Second

// awaitRunning returns when the ephemeral container name runs. What cannot
// get better by waiting is an error at once, and so is an image that the node
// does not get in time: a registry that does not answer looks like a slow one.
func (a *attachment) awaitRunning(ctx context.Context, pod *api.Pod, name string) error {
	deadline := time.Now().Add(a.spec.PullTimeout)
	last := ""
	for {
		running, err := a.judge(ctx, pod, name, &last)
		if running || err != nil {
			return err
		}
		next, err := a.nextUntil(ctx, pod, deadline)
		switch {
		case err == nil:
			pod = next
		case errors.Is(err, errSlow):
			return a.slow(pod, name)
		case errors.Is(err, errPulling):
			if creating(pod, name) && !a.imageThere(ctx, pod, name) {
				return a.notPulled(name)
			}
			deadline = time.Now().Add(a.spec.PullTimeout)
		default:
			return err
		}
	}
}

// nextUntil is nextChange with a deadline of its own.
func (a *attachment) nextUntil(ctx context.Context, pod *api.Pod, deadline time.Time) (*api.Pod, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, deadline, errPulling)
	defer cancel()
	return a.nextChange(ctx, pod)
}

// creating reports whether the node has begun with a container, which begins
// with its image.
func creating(pod *api.Pod, name string) bool {
	s := statusOf(pod, name)
	return s != nil && s.State.Waiting != nil
}

// imageThere reports whether the node says that it has the image of a
// container. Its events are all that tells; not everybody may read them.
func (a *attachment) imageThere(ctx context.Context, pod *api.Pod, name string) bool {
	var events api.EventList
	err := a.do(ctx, request{verb: "list", resource: "events", namespace: pod.Namespace, query: url.Values{
		"fieldSelector": {"reason=Pulled,involvedObject.uid=" + string(pod.UID)},
	}}, &events)
	if err != nil {
		a.log.Debug("read events", "target", pod.Namespace+"/"+pod.Name, "err", err)
		return false
	}
	return slices.ContainsFunc(events.Items, func(e api.Event) bool {
		return e.Reason == "Pulled" && e.InvolvedObject.UID == pod.UID && e.InvolvedObject.FieldPath == "spec.ephemeralContainers{"+name+"}"
	})
}

// notPulled explains an image that the node is still waiting for.
func (a *attachment) notPulled(name string) error {
	return &Error{ID: "BN1205", Op: "attach to", Object: a.object(), Err: errPulling,
		Reason: fmt.Sprintf("image %q is not on the node after %v: its registry is slow or does not answer", a.image, a.spec.PullTimeout),
		Hint: "if it is only slow, run the same command again: it goes on with " + name + "; else see " +
			a.kubectl(a.target.Namespace, "describe pod "+a.target.Pod)}
}

// judge reports whether the agent runs, or why it never will. last is what
// progress was told.
func (a *attachment) judge(ctx context.Context, pod *api.Pod, name string, last *string) (running bool, err error) {
	if string(pod.UID) != a.target.UID || pod.DeletionTimestamp != nil {
		return false, a.gone("attach to", a.target)
	}
	if pod.Status.Phase == api.PodSucceeded || pod.Status.Phase == api.PodFailed {
		return false, &Error{Op: "attach to", Object: a.object(), Reason: fmt.Sprintf("the pod is not running any more: it is %s", pod.Status.Phase)}
	}
	s := statusOf(pod, name)
	step := "waiting for the node to start the agent"
	switch {
	case s == nil:
	case s.State.Running != nil:
		return true, nil
	case s.State.Terminated != nil:
		return false, a.ended(ctx, name, s.State.Terminated)
	case s.State.Waiting != nil && s.State.Waiting.Reason != "":
		if err := a.hopeless(name, s.State.Waiting); err != nil {
			return false, err
		}
		step += " (" + s.State.Waiting.Reason + ")"
	}
	if step != *last {
		*last = step
		a.progress(step)
	}
	return false, nil
}

// hopeless returns the error for a waiting state that needs the user.
func (a *attachment) hopeless(name string, w *api.ContainerStateWaiting) error {
	e := &Error{Op: "attach to", Object: a.object(),
		Hint: a.kubectl(a.target.Namespace, "describe pod "+a.target.Pod)}
	detail := ""
	if w.Message != "" {
		detail = ": " + oneLine(w.Message)
	}
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "SignatureValidationFailed":
		e.ID = "BN1205"
		e.Reason = fmt.Sprintf("image %q cannot be pulled (%s)%s", a.image, w.Reason, detail)
		e.Hint = "is --agent-image right, and may the pod's imagePullSecrets read it? " + e.Hint
	case "InvalidImageName", "ImageInspectError":
		e.ID = "BN1205"
		e.Reason = fmt.Sprintf("image %q cannot be used (%s)%s", a.image, w.Reason, detail)
		e.Hint = "give a full reference with --agent-image: REGISTRY/NAME:TAG"
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError", "CrashLoopBackOff":
		e.ID = idNotStarted
		e.Reason = fmt.Sprintf("the node cannot start agent %s from image %q (%s)%s", name, a.image, w.Reason, detail)
		a.explainNoShell(e, w.Message)
	default:
		return nil
	}
	return e
}

// ended explains a terminated agent with its last words.
func (a *attachment) ended(ctx context.Context, name string, t *api.ContainerStateTerminated) error {
	e := &Error{ID: idNotStarted, Op: "attach to", Object: a.object(), Err: errEnded,
		Reason: fmt.Sprintf("agent %s from image %q ended with exit code %d", name, a.image, t.ExitCode),
		Hint:   a.kubectl(a.target.Namespace, "logs "+a.target.Pod+" -c "+name)}
	if t.Reason != "" {
		e.Reason += " (" + t.Reason + ")"
	}
	if t.Message != "" {
		e.Reason += ": " + oneLine(t.Message)
	}
	if a.explainNoShell(e, t.Message) {
		return e
	}
	if lines, err := a.lastLines(ctx, a.target, name); err == nil && lines != "" {
		e.Reason += "; its last words: " + lines
		a.explainRefusal(e, lines)
	}
	return e
}

// slow explains an agent that did not come up in time.
func (a *attachment) slow(pod *api.Pod, name string) error {
	state := "the node has not begun to start it"
	if s := statusOf(pod, name); s != nil && s.State.Waiting != nil {
		state = strings.TrimSuffix(s.State.Waiting.Reason+": "+oneLine(s.State.Waiting.Message), ": ")
	}
	return &Error{ID: idNotStarted, Op: "attach to", Object: a.object(), Err: context.DeadlineExceeded,
		Reason: fmt.Sprintf("agent %s from image %q is not running after %v: %s", name, a.image, a.spec.PullTimeout+startTimeout, state),
		Hint:   a.kubectl(a.target.Namespace, "describe pod "+a.target.Pod) + " (the next up goes on with the same agent)"}
}

// rewatch is the pause before a watch that ended is opened again.
const rewatch = 200 * time.Millisecond

// nextChange returns the next state of pod. A watch that ends or has expired
// is replaced by reading the pod again.
func (a *attachment) nextChange(ctx context.Context, pod *api.Pod) (*api.Pod, error) {
	next, err := a.watchOnce(ctx, pod)
	if next != nil || err != nil {
		return next, err
	}
	if err := pause(ctx, rewatch); err != nil {
		return nil, err
	}
	next, err = a.getPod(ctx, pod.Namespace, pod.Name)
	if apierrors.IsNotFound(err) {
		return nil, a.gone("attach to", a.target)
	}
	return next, err
}

// watchOnce returns the first state of pod that is newer than the given one,
// or nil when the watch ended before.
func (a *attachment) watchOnce(ctx context.Context, pod *api.Pod) (*api.Pod, error) {
	body, err := a.open(ctx, request{verb: "watch", resource: "pods", namespace: pod.Namespace, query: url.Values{
		"watch":           {"true"},
		"fieldSelector":   {"metadata.name=" + pod.Name},
		"resourceVersion": {pod.ResourceVersion},
	}})
	if apierrors.IsGone(err) || apierrors.IsResourceExpired(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var event struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := d.Decode(&event); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			a.log.Debug("watch ended", "target", pod.Namespace+"/"+pod.Name, "err", err)
			return nil, nil
		}
		switch event.Type {
		case "ERROR":
			return nil, watchError(event.Object)
		case "DELETED":
			return nil, a.gone("attach to", a.target)
		case "ADDED", "MODIFIED":
			next := new(api.Pod)
			if err := json.Unmarshal(event.Object, next); err != nil {
				return nil, fmt.Errorf("decode watched pod: %w", err)
			}
			return next, nil
		}
	}
}

// watchError returns the error that a watch reported, nil for an expired one.
func watchError(raw json.RawMessage) error {
	var status metav1.Status
	if err := json.Unmarshal(raw, &status); err != nil {
		return fmt.Errorf("decode watch error: %w", err)
	}
	err := &apierrors.StatusError{ErrStatus: status}
	if apierrors.IsGone(err) || apierrors.IsResourceExpired(err) {
		return nil
	}
	return err
}
