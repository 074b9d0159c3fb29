package kube

import (
	"path"
	"slices"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Mount is a volume of the container whose files a session may have: one that
// the kubelet fills from the cluster. What the application writes is not one.
type Mount struct {
	Path   string `json:"path"`          // where the container has it, clean
	Volume string `json:"volume"`        // kind and name, for people
	Why    string `json:"why,omitempty"` // why its files cannot be had, or ""
}

// kindOf names the kind of a volume that the kubelet fills, or returns "".
func kindOf(v *api.Volume) string {
	switch {
	case v.Secret != nil:
		return "secret " + v.Secret.SecretName
	case v.ConfigMap != nil:
		return "configmap " + v.ConfigMap.Name
	case v.Projected != nil:
		return "projected " + v.Name
	case v.DownwardAPI != nil:
		return "downward " + v.Name
	}
	return ""
}

// volumeOf returns the kind of what is mounted, or "".
func volumeOf(pod *api.Pod, m *api.VolumeMount) string {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v api.Volume) bool { return v.Name == m.Name })
	if i < 0 {
		return ""
	}
	return kindOf(&pod.Spec.Volumes[i])
}

func hasSubPath(m *api.VolumeMount) bool { return m.SubPath != "" || m.SubPathExpr != "" }

// mountsOf returns the mounts of a container that a session may have, or would
// if they were possible.
func mountsOf(pod *api.Pod, ct *api.Container) []Mount {
	var out []Mount
	for i := range ct.VolumeMounts {
		m := &ct.VolumeMounts[i]
		kind := volumeOf(pod, m)
		if kind == "" {
			continue
		}
		mount := Mount{Path: path.Clean(m.MountPath), Volume: kind}
		if hasSubPath(m) {
			mount.Why = "it is mounted with a subPath, which ephemeral containers cannot have"
		}
		out = append(out, mount)
	}
	return out
}

// borrowedFrom returns ct with the mounts alone that an agent gets as well.
func borrowedFrom(pod *api.Pod, ct *api.Container) *api.Container {
	out := *ct
	out.VolumeMounts = nil
	for _, m := range ct.VolumeMounts {
		if volumeOf(pod, &m) != "" && !hasSubPath(&m) {
			out.VolumeMounts = append(out.VolumeMounts, m)
		}
	}
	return &out
}
