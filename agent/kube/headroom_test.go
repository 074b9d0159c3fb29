package kube

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func TestHeadroom(t *testing.T) {
	always := api.ContainerRestartPolicyAlways
	ct := func(request, limit string) api.Container {
		c := api.Container{Resources: api.ResourceRequirements{Requests: map[string]resource.Quantity{}, Limits: map[string]resource.Quantity{}}}
		if request != "" {
			c.Resources.Requests[api.ResourceMemory] = resource.MustParse(request)
		}
		if limit != "" {
			c.Resources.Limits[api.ResourceMemory] = resource.MustParse(limit)
		}
		return c
	}
	sidecar := func(c api.Container) api.Container { c.RestartPolicy = &always; return c }
	for _, tt := range []struct {
		name       string
		containers []api.Container
		inits      []api.Container
		whole      string // the pod's own limit
		want       string // a part of it; "" = silence
	}{
		{"no_limits", []api.Container{ct("", "")}, nil, "", ""},
		{"one_without_limit", []api.Container{ct("", "64Mi"), ct("", "")}, nil, "", ""},
		{"room", []api.Container{ct("64Mi", "128Mi")}, nil, "", ""},
		{"guaranteed", []api.Container{ct("128Mi", "128Mi")}, nil, "", "limit of 128Mi its containers request 128Mi: 0 are left"},
		{"limit_is_request", []api.Container{ct("", "128Mi")}, nil, "", "0 are left"},
		{"tight", []api.Container{ct("100Mi", "128Mi")}, nil, "", "28Mi are left for the agent, which may use 64Mi"},
		{"sidecar_gives_room", []api.Container{ct("128Mi", "128Mi")}, []api.Container{sidecar(ct("40Mi", "512Mi"))}, "", ""},
		{"init_container_does_not", []api.Container{ct("128Mi", "128Mi")}, []api.Container{ct("40Mi", "512Mi")}, "", "0 are left"},
		{"limit_of_the_pod", []api.Container{ct("100Mi", "")}, nil, "128Mi", "28Mi are left"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &api.Pod{Spec: api.PodSpec{Containers: tt.containers, InitContainers: tt.inits}}
			if tt.whole != "" {
				pod.Spec.Resources = &api.ResourceRequirements{Limits: map[string]resource.Quantity{api.ResourceMemory: resource.MustParse(tt.whole)}}
			}
			if got := headroom(pod); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
