package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func TestMounts(t *testing.T) {
	volume := func(name string, source api.VolumeSource) api.Volume {
		return api.Volume{Name: name, VolumeSource: source}
	}
	pod := &api.Pod{Spec: api.PodSpec{Volumes: []api.Volume{
		volume("s", api.VolumeSource{Secret: &api.SecretVolumeSource{SecretName: "db"}}),
		volume("c", api.VolumeSource{ConfigMap: &api.ConfigMapVolumeSource{LocalObjectReference: api.LocalObjectReference{Name: "app"}}}),
		volume("kube-api-access", api.VolumeSource{Projected: &api.ProjectedVolumeSource{}}),
		volume("labels", api.VolumeSource{DownwardAPI: &api.DownwardAPIVolumeSource{}}),
		volume("work", api.VolumeSource{}), // an emptyDir, or a hostPath
	}}}
	ct := &api.Container{Name: "app", VolumeMounts: []api.VolumeMount{
		{Name: "s", MountPath: "/secret/"}, {Name: "c", MountPath: "/etc/app.yaml", SubPath: "app.yaml"}, {Name: "c", MountPath: "/x", SubPathExpr: "$(A)"},
		{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}, {Name: "labels", MountPath: "/podinfo"},
		{Name: "work", MountPath: "/work"}, {Name: "unknown", MountPath: "/u"},
	}}
	const why = "it is mounted with a subPath, which ephemeral containers cannot have"
	want := []Mount{
		{"/secret", "secret db", ""}, {"/etc/app.yaml", "configmap app", why}, {"/x", "configmap app", why},
		{"/var/run/secrets/kubernetes.io/serviceaccount", "projected kube-api-access", ""}, {"/podinfo", "downward labels", ""},
	}
	if diff := cmp.Diff(want, mountsOf(pod, ct)); diff != "" {
		t.Errorf("mounts (-want +got)\n%s", diff)
	}
	got := borrowedFrom(pod, ct).VolumeMounts
	if diff := cmp.Diff([]api.VolumeMount{ct.VolumeMounts[0], ct.VolumeMounts[3], ct.VolumeMounts[4]}, got); diff != "" {
		t.Errorf("the agent's mounts (-want +got)\n%s", diff)
	}
	if len(ct.VolumeMounts) != 7 {
		t.Error("the container was changed")
	}
}
