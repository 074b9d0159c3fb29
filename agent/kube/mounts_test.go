package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestMounts(t *testing.T) {
	volume := func(name string, source corev1.VolumeSource) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: source}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{
		volume("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "db"}}),
		volume("c", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "app"}}}),
		volume("kube-api-access", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}),
		volume("labels", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}}),
		volume("work", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volume("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}),
	}}}
	ct := &corev1.Container{Name: "app", VolumeMounts: []corev1.VolumeMount{
		{Name: "s", MountPath: "/secret/"}, {Name: "c", MountPath: "/etc/app.yaml", SubPath: "app.yaml"}, {Name: "c", MountPath: "/x", SubPathExpr: "$(A)"},
		{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}, {Name: "labels", MountPath: "/podinfo"},
		{Name: "work", MountPath: "/work"}, {Name: "host", MountPath: "/host"}, {Name: "unknown", MountPath: "/u"},
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
	if diff := cmp.Diff([]corev1.VolumeMount{ct.VolumeMounts[0], ct.VolumeMounts[3], ct.VolumeMounts[4]}, got); diff != "" {
		t.Errorf("the agent's mounts (-want +got)\n%s", diff)
	}
	if len(ct.VolumeMounts) != 8 {
		t.Error("the container was changed")
	}
}
