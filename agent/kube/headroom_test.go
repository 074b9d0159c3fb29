package kube

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestHeadroom(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	ct := func(request, limit string) corev1.Container {
		c := corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}}
		if request != "" {
			c.Resources.Requests[corev1.ResourceMemory] = resource.MustParse(request)
		}
		if limit != "" {
			c.Resources.Limits[corev1.ResourceMemory] = resource.MustParse(limit)
		}
		return c
	}
	sidecar := func(c corev1.Container) corev1.Container { c.RestartPolicy = &always; return c }
	for _, tt := range []struct {
		name       string
		containers []corev1.Container
		inits      []corev1.Container
		whole      string // the pod's own limit
		want       string // a part of it; "" = silence
	}{
		{"no_limits", []corev1.Container{ct("", "")}, nil, "", ""},
		{"one_without_limit", []corev1.Container{ct("", "64Mi"), ct("", "")}, nil, "", ""},
		{"room", []corev1.Container{ct("64Mi", "128Mi")}, nil, "", ""},
		{"guaranteed", []corev1.Container{ct("128Mi", "128Mi")}, nil, "", "limit of 128Mi its containers request 128Mi: 0 are left"},
		{"limit_is_request", []corev1.Container{ct("", "128Mi")}, nil, "", "0 are left"},
		{"tight", []corev1.Container{ct("100Mi", "128Mi")}, nil, "", "28Mi are left for the agent, which may use 64Mi"},
		{"sidecar_gives_room", []corev1.Container{ct("128Mi", "128Mi")}, []corev1.Container{sidecar(ct("40Mi", "512Mi"))}, "", ""},
		{"init_container_does_not", []corev1.Container{ct("128Mi", "128Mi")}, []corev1.Container{ct("40Mi", "512Mi")}, "", "0 are left"},
		{"limit_of_the_pod", []corev1.Container{ct("100Mi", "")}, nil, "128Mi", "28Mi are left"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: tt.containers, InitContainers: tt.inits}}
			if tt.whole != "" {
				pod.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(tt.whole)}}
			}
			if got := headroom(pod); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
