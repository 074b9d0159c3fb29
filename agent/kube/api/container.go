package api

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/api/resource"
)

// ContainerRestartPolicyAlways makes a sidecar of an init container.
const ContainerRestartPolicyAlways = "Always"

// Container is a container of a pod.
type Container struct {
	Name            string               `json:"name"`
	Image           string               `json:"image,omitempty"`
	Args            []string             `json:"args,omitempty"`
	EnvFrom         []EnvFromSource      `json:"envFrom,omitempty"`
	Env             []EnvVar             `json:"env,omitempty"`
	Resources       ResourceRequirements `json:"resources,omitempty"`
	RestartPolicy   *string              `json:"restartPolicy,omitempty"`
	VolumeMounts    []VolumeMount        `json:"volumeMounts,omitempty"`
	SecurityContext *SecurityContext     `json:"securityContext,omitempty"`
}

// What the API server gives to containers that do not say it.
const (
	PullIfNotPresent              = "IfNotPresent"
	TerminationMessagePathDefault = "/dev/termination-log"
	TerminationMessageReadFile    = "File"
)

// EphemeralContainer is a container that was added to a running pod.
type EphemeralContainer struct {
	Name                     string               `json:"name"`
	Image                    string               `json:"image,omitempty"`
	Command                  []string             `json:"command,omitempty"`
	Args                     []string             `json:"args,omitempty"`
	EnvFrom                  []EnvFromSource      `json:"envFrom,omitempty"`
	Env                      []EnvVar             `json:"env,omitempty"`
	Resources                ResourceRequirements `json:"resources,omitempty"`
	VolumeMounts             []VolumeMount        `json:"volumeMounts,omitempty"`
	TerminationMessagePath   string               `json:"terminationMessagePath,omitempty"`
	TerminationMessagePolicy string               `json:"terminationMessagePolicy,omitempty"`
	ImagePullPolicy          string               `json:"imagePullPolicy,omitempty"`
	SecurityContext          *SecurityContext     `json:"securityContext,omitempty"`
	Stdin                    bool                 `json:"stdin,omitempty"`
	StdinOnce                bool                 `json:"stdinOnce,omitempty"`

	// Stored is the container as the API server wrote it, fields that are not known
	// here included; nil if it was not decoded.
	Stored json.RawMessage `json:"-"`
}

// UnmarshalJSON implements json.Unmarshaler: it fills in Stored.
func (ec *EphemeralContainer) UnmarshalJSON(b []byte) error {
	type fields EphemeralContainer // without this method
	if err := json.Unmarshal(b, (*fields)(ec)); err != nil {
		return err
	}
	ec.Stored = append(json.RawMessage(nil), b...)
	return nil
}

// EnvVar is one environment variable.
type EnvVar struct {
	Name      string        `json:"name"`
	Value     string        `json:"value,omitempty"`
	ValueFrom *EnvVarSource `json:"valueFrom,omitempty"`
}

// EnvVarSource is where the kubelet gets the value of a variable.
type EnvVarSource struct {
	FieldRef         *ObjectFieldSelector   `json:"fieldRef,omitempty"`
	ResourceFieldRef *ResourceFieldSelector `json:"resourceFieldRef,omitempty"`
	ConfigMapKeyRef  *KeySelector           `json:"configMapKeyRef,omitempty"`
	SecretKeyRef     *KeySelector           `json:"secretKeyRef,omitempty"`
	FileKeyRef       *FileKeySelector       `json:"fileKeyRef,omitempty"`
}

// ObjectFieldSelector is a field of the pod's object.
type ObjectFieldSelector struct {
	APIVersion string `json:"apiVersion,omitempty"`
	FieldPath  string `json:"fieldPath"`
}

// ResourceFieldSelector is a limit or request of a container.
type ResourceFieldSelector struct {
	ContainerName string            `json:"containerName,omitempty"` // empty = the one whose variable it is
	Resource      string            `json:"resource"`
	Divisor       resource.Quantity `json:"divisor,omitempty"`
}

// KeySelector is one key of a ConfigMap or Secret.
type KeySelector struct {
	LocalObjectReference
	Key      string `json:"key"`
	Optional *bool  `json:"optional,omitempty"`
}

// FileKeySelector is one line of a file in a volume.
type FileKeySelector struct {
	VolumeName string `json:"volumeName"`
	Path       string `json:"path"`
	Key        string `json:"key"`
	Optional   *bool  `json:"optional,omitempty"`
}

// EnvFromSource makes variables of all keys of a ConfigMap or Secret.
type EnvFromSource struct {
	Prefix       string     `json:"prefix,omitempty"`
	ConfigMapRef *EnvSource `json:"configMapRef,omitempty"`
	SecretRef    *EnvSource `json:"secretRef,omitempty"`
}

// EnvSource names the ConfigMap or Secret of an EnvFromSource.
type EnvSource struct {
	LocalObjectReference
	Optional *bool `json:"optional,omitempty"`
}

// LocalObjectReference names an object of the pod's namespace.
type LocalObjectReference struct {
	Name string `json:"name,omitempty"`
}

// VolumeMount shows a volume to a container.
type VolumeMount struct {
	Name              string   `json:"name"`
	ReadOnly          bool     `json:"readOnly,omitempty"`
	RecursiveReadOnly *string  `json:"recursiveReadOnly,omitempty"`
	MountPath         string   `json:"mountPath"`
	SubPath           string   `json:"subPath,omitempty"`
	MountPropagation  *string  `json:"mountPropagation,omitempty"`
	SubPathExpr       string   `json:"subPathExpr,omitempty"`
	BindMountOptions  []string `json:"bindMountOptions,omitempty"`
}

// SecurityContext is what a container runs as, and confined by.
type SecurityContext struct {
	Capabilities             *Capabilities   `json:"capabilities,omitempty"`
	RunAsUser                *int64          `json:"runAsUser,omitempty"`
	RunAsGroup               *int64          `json:"runAsGroup,omitempty"`
	RunAsNonRoot             *bool           `json:"runAsNonRoot,omitempty"`
	ReadOnlyRootFilesystem   *bool           `json:"readOnlyRootFilesystem,omitempty"`
	AllowPrivilegeEscalation *bool           `json:"allowPrivilegeEscalation,omitempty"`
	SeccompProfile           *SeccompProfile `json:"seccompProfile,omitempty"`
}

// Capabilities are changes to those that the runtime gives, without "CAP_".
type Capabilities struct {
	Add  []string `json:"add,omitempty"`
	Drop []string `json:"drop,omitempty"`
}

// SeccompProfileTypeRuntimeDefault is the container runtime's own profile.
const SeccompProfileTypeRuntimeDefault = "RuntimeDefault"

// SeccompProfile names a filter of system calls.
type SeccompProfile struct {
	Type string `json:"type"`
}
