package kube

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// agentMemory is what an agent may use; package agent keeps to it.
const agentMemory = 64 << 20

// headroom says what the user should know about the memory that the agent takes
// of pod's limit, or "". The spec does not tell what the pod uses now: what its
// containers request is what they are expected to.
func headroom(pod *api.Pod) string {
	limit, ok := memoryLimit(pod)
	if !ok {
		return ""
	}
	requested := memoryRequest(pod)
	left := limit - requested
	if left >= agentMemory {
		return ""
	}
	return fmt.Sprintf("warning: of the pod's memory limit of %s its containers request %s: %s are left for the agent, which may use %s; "+
		"if the pod runs out of memory the agent is ended first, and the session with it",
		bytesText(limit), bytesText(requested), bytesText(max(left, 0)), bytesText(agentMemory))
}

func bytesText(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

// lasting are the containers that run as long as the pod does.
func lasting(pod *api.Pod) []api.Container {
	sidecars := slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), func(c api.Container) bool {
		return c.RestartPolicy == nil || *c.RestartPolicy != api.ContainerRestartPolicyAlways
	})
	return append(sidecars, pod.Spec.Containers...)
}

// memoryLimit returns the limit of the whole pod, which has one if it says so
// or each of its containers has one: the kubelet's rule.
func memoryLimit(pod *api.Pod) (int64, bool) {
	if r := pod.Spec.Resources; r != nil {
		if q, ok := r.Limits[api.ResourceMemory]; ok {
			return q.Value(), true
		}
	}
	var sum int64
	for _, c := range lasting(pod) {
		q, ok := c.Resources.Limits[api.ResourceMemory]
		if !ok || q.IsZero() {
			return 0, false
		}
		sum += q.Value()
	}
	return sum, sum > 0
}

// memoryRequest returns what the pod's containers request together.
func memoryRequest(pod *api.Pod) int64 {
	var sum int64
	for _, c := range lasting(pod) {
		q, ok := c.Resources.Requests[api.ResourceMemory]
		if !ok { // the API server's default
			q = c.Resources.Limits[api.ResourceMemory]
		}
		sum += q.Value()
	}
	return sum
}
