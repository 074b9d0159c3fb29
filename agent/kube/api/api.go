// Package api has the part of Kubernetes' objects that borrownet reads and
// writes, in the API's JSON and under the names of the published Go types.
//
// The published types (k8s.io/api) hold all of the API with its protobuf code:
// to compile them takes longer than to compile borrownet. The tests hold these
// ones against them, field by field.
//
// What is decoded and not known here is left out. What the agent's container
// copies from the borrowed one is complete: [EnvVar], [EnvFromSource] and
// [VolumeMount] have every field that is published.
package api

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Namespace is what pods and rights are in.
type Namespace struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
}

// NamespaceList is one page of namespaces.
type NamespaceList struct {
	metav1.TypeMeta
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Namespace `json:"items"`
}

// ServiceAccount is the cluster's name for what a pod may do.
type ServiceAccount struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
}

// Event is a note that a component of the cluster made about an object.
type Event struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata"`
	InvolvedObject    ObjectReference `json:"involvedObject"`
	Reason            string          `json:"reason,omitempty"`
}

// EventList is one page of events.
type EventList struct {
	metav1.TypeMeta
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Event `json:"items"`
}

// ObjectReference names an object, and something in it.
type ObjectReference struct {
	UID       types.UID `json:"uid,omitempty"`
	FieldPath string    `json:"fieldPath,omitempty"` // e.g. spec.containers{app}
}

// ResourceRequirements are amounts by the name of what they are of.
type ResourceRequirements struct {
	Limits   map[string]resource.Quantity `json:"limits,omitempty"`
	Requests map[string]resource.Quantity `json:"requests,omitempty"`
}

// ResourceMemory is the name of memory in ResourceRequirements.
const ResourceMemory = "memory"

// Headers of the streams of port-forward and attach, and their values.
const (
	StreamType                 = "streamType"
	StreamTypeStdin            = "stdin"
	StreamTypeStdout           = "stdout"
	StreamTypeData             = "data"
	StreamTypeError            = "error"
	PortHeader                 = "port"
	PortForwardRequestIDHeader = "requestID"
)
