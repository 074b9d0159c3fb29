package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

const (
	defaultContainer = "kubectl.kubernetes.io/default-container"
	templateHash     = "pod-template-hash" // label that a Deployment puts on its pods
)

// istioProxy is the name of Istio's sidecar.
const istioProxy = "istio-proxy"

// proxyContainers are the names of service-mesh sidecars.
func proxyContainers() []string { return []string{istioProxy, "linkerd-proxy"} }

func (c *Client) getPod(ctx context.Context, namespace, name string) (*api.Pod, error) {
	pod := new(api.Pod)
	err := c.do(ctx, request{verb: "get", resource: "pods", namespace: namespace, name: name}, pod)
	return pod, err
}

// targetPod fetches the pod of a target again and makes sure that it is still
// the same one and can take an agent.
func (c *Client) targetPod(ctx context.Context, op string, t *Target) (*api.Pod, error) {
	object := "pod " + t.Namespace + "/" + t.Pod
	pod, err := c.getPod(ctx, t.Namespace, t.Pod)
	switch {
	case apierrors.IsNotFound(err), err == nil && string(pod.UID) != t.UID:
		return nil, c.gone(op, t)
	case err != nil:
		return nil, c.explain(op, object, err)
	}
	if p := c.unusable(pod); p != nil {
		return nil, &Error{ID: idNotRunning, Op: op, Object: object, Reason: p.reason, Hint: p.hint}
	}
	return pod, nil
}

// gone is the error for a pod that was replaced since it was resolved.
func (c *Client) gone(op string, t *Target) error {
	ref := t.Workload
	if ref == "" {
		ref = t.Pod
	}
	return &Error{ID: "BN1106", Op: op, Object: "pod " + t.Namespace + "/" + t.Pod, Reason: ErrGone.Error(), Err: ErrGone,
		Hint: "borrownet up --pod " + ref + c.flags + " -n " + t.Namespace}
}

// problem is why a pod cannot be a target.
type problem struct{ reason, hint string }

// unusable returns why pod cannot take an agent, or nil.
func (c *Client) unusable(pod *api.Pod) *problem {
	show := c.kubectl(pod.Namespace, "get pod "+pod.Name+" -o wide")
	switch {
	case pod.DeletionTimestamp != nil:
		return &problem{"the pod is terminating", "wait for its successor: " + c.kubectl(pod.Namespace, "get pods --watch")}
	case pod.Annotations[api.MirrorPodAnnotationKey] != "":
		return &problem{"it is a static pod: the kubelet's own pods cannot take ephemeral containers",
			"choose a pod that the API server manages: " + c.kubectl(pod.Namespace, "get pods")}
	case pod.Spec.OS != nil && pod.Spec.OS.Name == api.Windows, pod.Spec.NodeSelector[api.LabelOSStable] == "windows":
		return &problem{"it runs Windows; borrownet's agent runs on Linux only", "choose a pod on a Linux node"}
	case pod.Status.Phase != api.PodRunning:
		reason := fmt.Sprintf("the pod is not running: it is %s", cmp.Or(pod.Status.Phase, "Unknown"))
		if why := stuckOn(pod); why != "" {
			reason += " (" + why + ")"
			show = c.kubectl(pod.Namespace, "describe pod "+pod.Name)
		}
		return &problem{reason, show}
	}
	return nil
}

// stuckOn returns what a pod that does not run waits for, or why it ended.
func stuckOn(pod *api.Pod) string {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "" && w.Reason != "PodInitializing" {
			return s.Name + ": " + w.Reason
		}
	}
	for _, cond := range pod.Status.Conditions {
		if cond.Type == api.PodScheduled && cond.Status == api.ConditionFalse {
			return cmp.Or(cond.Reason, "not scheduled")
		}
	}
	return pod.Status.Reason
}

func isReady(pod *api.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c api.PodCondition) bool {
		return c.Type == api.PodReady && c.Status == api.ConditionTrue
	})
}

// byPreference orders pods: ready ones first, then the newest, then by name.
func byPreference(a, b *api.Pod) int {
	if ra, rb := isReady(a), isReady(b); ra != rb {
		if ra {
			return -1
		}
		return 1
	}
	return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}

// findContainer returns the container to borrow from: the named one, else the
// pod's default, else the first that is no mesh proxy.
func (c *Client) findContainer(pod *api.Pod, name string) (*api.Container, error) {
	byName := func(name string) *api.Container {
		for i := range pod.Spec.Containers {
			if pod.Spec.Containers[i].Name == name {
				return &pod.Spec.Containers[i]
			}
		}
		for i := range pod.Spec.InitContainers { // sidecars
			ic := &pod.Spec.InitContainers[i]
			if ic.Name == name && ic.RestartPolicy != nil && *ic.RestartPolicy == api.ContainerRestartPolicyAlways {
				return ic
			}
		}
		return nil
	}
	if name != "" {
		if found := byName(name); found != nil {
			return found, nil
		}
		names := make([]string, 0, len(pod.Spec.Containers))
		for _, ct := range pod.Spec.Containers {
			names = append(names, ct.Name)
		}
		return nil, &Error{ID: "BN1105", Op: "find", Object: "container " + name + " in pod " + pod.Namespace + "/" + pod.Name,
			Reason: "the pod has no such container", Hint: "use -c with one of: " + strings.Join(names, ", ")}
	}
	if found := byName(pod.Annotations[defaultContainer]); found != nil {
		return found, nil
	}
	for i := range pod.Spec.Containers {
		if !slices.Contains(proxyContainers(), pod.Spec.Containers[i].Name) {
			return &pod.Spec.Containers[i], nil
		}
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, &Error{Op: "find", Object: "container in pod " + pod.Namespace + "/" + pod.Name, Reason: "the pod has none"}
	}
	return &pod.Spec.Containers[0], nil
}

// target describes pod with the named container, or its default one.
func (c *Client) target(ctx context.Context, pod *api.Pod, container, workload string) (*Target, error) {
	ct, err := c.findContainer(pod, container)
	if err != nil {
		return nil, err
	}
	if workload == "" {
		workload = workloadOf(pod)
	}
	t := &Target{
		Context: c.context, Namespace: pod.Namespace, Pod: pod.Name, UID: string(pod.UID),
		Container: ct.Name, Node: pod.Spec.NodeName, Workload: workload,
		Ready: isReady(pod), Hostname: cmp.Or(pod.Spec.Hostname, pod.Name), Env: environmentOf(ct), Mounts: mountsOf(pod, ct), Mesh: meshOf(pod),
	}
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			t.PodIPs = append(t.PodIPs, a)
		}
	}
	if a, err := netip.ParseAddr(pod.Status.HostIP); err == nil {
		t.HostIP = a
	}
	if len(t.PodIPs) == 0 {
		return nil, &Error{ID: idNotRunning, Op: "find", Object: "pod " + pod.Namespace + "/" + pod.Name, Reason: "the pod has no IP address yet",
			Hint: c.kubectl(pod.Namespace, "get pod "+pod.Name+" -o wide")}
	}
	t.Cloud = c.cloudOf(ctx, pod, ct)
	return t, nil
}

// ownersOf names what pod belongs to as TYPE/NAME: its workload, and what
// stands between them if that is another.
func ownersOf(pod *api.Pod) []string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return nil
	}
	refs := []string{workloadOf(pod)}
	if direct := refOf(owner); direct != refs[0] {
		refs = append(refs, direct)
	}
	return refs
}

// workloadOf names the workload that made pod as TYPE/NAME, or returns "".
func workloadOf(pod *api.Pod) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return ""
	}
	if owner.Kind == "ReplicaSet" {
		if name, ok := strings.CutSuffix(owner.Name, "-"+pod.Labels[templateHash]); ok && pod.Labels[templateHash] != "" {
			return "deploy/" + name
		}
	}
	return refOf(owner)
}

func refOf(owner *metav1.OwnerReference) string {
	word := strings.ToLower(owner.Kind)
	if k, ok := findKind(word); ok {
		word = k.short
	}
	return word + "/" + owner.Name
}
