package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// ErrGone is the cause of an error about a pod that is no more.
var ErrGone = errors.New("the pod no longer exists")

// Fate says what has become of a target.
type Fate struct {
	Gone   string       `json:"gone,omitempty"` // why its pod is no more, or is about to be no more; "" = it is there
	Ready  bool         `json:"ready"`          // the pod; a node that is lost makes it unready
	Agents []AgentState `json:"agents,omitempty"`
}

// Fate looks what has become of t.
func (c *Client) Fate(ctx context.Context, t *Target) (Fate, error) {
	pod, err := c.getPod(ctx, t.Namespace, t.Pod)
	switch {
	case apierrors.IsNotFound(err):
		return Fate{Gone: "pod " + t.Pod + " no longer exists"}, nil
	case err != nil:
		return Fate{}, c.explain("look at", "pod "+t.Namespace+"/"+t.Pod, err)
	case string(pod.UID) != t.UID:
		return Fate{Gone: "pod " + t.Pod + " was replaced by another of that name"}, nil
	}
	return Fate{Gone: endOf(pod), Ready: isReady(pod), Agents: agentsOf(pod)}, nil
}

// endOf returns why pod is no target any more, or "".
func endOf(pod *api.Pod) string {
	switch {
	case pod.Status.Phase == api.PodFailed && pod.Status.Reason == "Evicted":
		return fmt.Sprintf("pod %s was evicted: %s", pod.Name, oneLine(pod.Status.Message))
	case pod.Status.Phase == api.PodFailed, pod.Status.Phase == api.PodSucceeded:
		text := fmt.Sprintf("pod %s has ended: %s", pod.Name, pod.Status.Phase)
		if pod.Status.Reason != "" {
			text += " (" + pod.Status.Reason + ")"
		}
		return text
	case pod.DeletionTimestamp != nil:
		return "pod " + pod.Name + " is being deleted" + disruptionOf(pod)
	}
	return ""
}

// disruptionOf says who has a pod deleted, where that is not its own workload's doing:
// evictions, drains and nodes that are lost leave a condition.
func disruptionOf(pod *api.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == api.DisruptionTarget && c.Status == api.ConditionTrue {
			return fmt.Sprintf(" (%s: %s)", c.Reason, oneLine(c.Message))
		}
	}
	return ""
}

// Successor finds the pod to go on with after t was lost: t's own if that runs and is
// ready, else the best pod of its workload, which may be t's own too. A pod of a
// StatefulSet is only followed by that of the same name. The error of a pod that is
// gone and belongs to no workload is ErrGone.
func (c *Client) Successor(ctx context.Context, t *Target) (*Target, error) {
	pod, err := c.getPod(ctx, t.Namespace, t.Pod)
	same := err == nil && string(pod.UID) == t.UID && c.unusable(pod) == nil
	switch {
	case same && (isReady(pod) || t.Workload == ""):
		return c.target(ctx, pod, t.Container, t.Workload)
	case err != nil && !apierrors.IsNotFound(err):
		return nil, c.explain("find", "pod "+t.Namespace+"/"+t.Pod, err)
	case t.Workload == "":
		return nil, c.gone("borrow", t)
	}
	set, err := c.podsOfWorkload(ctx, t.Workload)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(t.Workload, "sts/") {
		set.pods = slices.DeleteFunc(set.pods, func(p *api.Pod) bool { return p.Name != t.Pod })
	}
	return c.fromSet(ctx, set, t.Container)
}

// podsOfWorkload returns the pods of what a pod named as its workload. That may be
// something that the user may not read, or of a type that is not known here: then the
// pods say whom they belong to.
func (c *Client) podsOfWorkload(ctx context.Context, ref string) (podSet, error) {
	if r, err := parseReference(ref); err == nil {
		set, err := c.podsOf(ctx, r.kind, r.name)
		if err == nil {
			return set, nil
		}
		if !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
			return set, c.explain("find", ref+" in namespace "+c.namespace, err)
		}
	}
	set, err := c.owned(ctx, ref)
	return set, c.explain("find", ref+" in namespace "+c.namespace, err)
}
