package api

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Annotations and labels of pods and nodes.
const (
	MirrorPodAnnotationKey = "kubernetes.io/config.mirror" // of pods that a kubelet made from a file
	LabelOSStable          = "kubernetes.io/os"
)

// Windows is a value of PodOS.Name.
const Windows = "windows"

// Pod is a group of containers on one node.
type Pod struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              PodSpec   `json:"spec,omitempty"`
	Status            PodStatus `json:"status,omitempty"`
}

// PodList is one page of pods.
type PodList struct {
	metav1.TypeMeta
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Pod `json:"items"`
}

// PodSpec is what a pod was asked to be.
type PodSpec struct {
	Volumes             []Volume              `json:"volumes,omitempty"`
	InitContainers      []Container           `json:"initContainers,omitempty"`
	Containers          []Container           `json:"containers"`
	EphemeralContainers []EphemeralContainer  `json:"ephemeralContainers,omitempty"`
	NodeSelector        map[string]string     `json:"nodeSelector,omitempty"`
	ServiceAccountName  string                `json:"serviceAccountName,omitempty"`
	NodeName            string                `json:"nodeName,omitempty"`
	HostNetwork         bool                  `json:"hostNetwork,omitempty"`
	SecurityContext     *PodSecurityContext   `json:"securityContext,omitempty"`
	Hostname            string                `json:"hostname,omitempty"`
	OS                  *PodOS                `json:"os,omitempty"`
	Resources           *ResourceRequirements `json:"resources,omitempty"` // of the whole pod; nil = the sum of its containers'
}

// PodOS is the operating system of a pod.
type PodOS struct {
	Name string `json:"name"`
}

// PodSecurityContext is what containers run as that do not say it themselves.
type PodSecurityContext struct {
	RunAsUser  *int64 `json:"runAsUser,omitempty"`
	RunAsGroup *int64 `json:"runAsGroup,omitempty"`
}

// Volume is a directory that containers of the pod may mount.
type Volume struct {
	Name string `json:"name"`
	VolumeSource
}

// VolumeSource says what fills a volume. No field is set if it is something that
// is not read here, such as a disk.
type VolumeSource struct {
	Secret      *SecretVolumeSource      `json:"secret,omitempty"`
	DownwardAPI *DownwardAPIVolumeSource `json:"downwardAPI,omitempty"`
	ConfigMap   *ConfigMapVolumeSource   `json:"configMap,omitempty"`
	Projected   *ProjectedVolumeSource   `json:"projected,omitempty"`
}

// SecretVolumeSource fills a volume from a Secret.
type SecretVolumeSource struct {
	SecretName string `json:"secretName,omitempty"`
}

// ConfigMapVolumeSource fills a volume from a ConfigMap.
type ConfigMapVolumeSource struct {
	LocalObjectReference
}

// DownwardAPIVolumeSource fills a volume with what the pod's object says.
type DownwardAPIVolumeSource struct{}

// ProjectedVolumeSource fills a volume from several sources.
type ProjectedVolumeSource struct {
	Sources []VolumeProjection `json:"sources"`
}

// VolumeProjection is one source of a projected volume.
type VolumeProjection struct {
	ServiceAccountToken *ServiceAccountTokenProjection `json:"serviceAccountToken,omitempty"`
}

// ServiceAccountTokenProjection is a token of the pod's ServiceAccount.
type ServiceAccountTokenProjection struct {
	Audience string `json:"audience,omitempty"`
	Path     string `json:"path"`
}
