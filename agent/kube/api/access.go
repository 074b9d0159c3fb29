package api

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SelfSubjectReview asks who the user is (authentication.k8s.io/v1).
type SelfSubjectReview struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Status            SelfSubjectReviewStatus `json:"status,omitempty"`
}

// SelfSubjectReviewStatus is the answer.
type SelfSubjectReviewStatus struct {
	UserInfo UserInfo `json:"userInfo,omitempty"`
}

// UserInfo is a user, as the API server knows them.
type UserInfo struct {
	Username string `json:"username,omitempty"`
}

// SelfSubjectAccessReview asks whether the user may do something
// (authorization.k8s.io/v1).
type SelfSubjectAccessReview struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              SelfSubjectAccessReviewSpec `json:"spec"`
	Status            SubjectAccessReviewStatus   `json:"status,omitempty"`
}

// SelfSubjectAccessReviewSpec is the question.
type SelfSubjectAccessReviewSpec struct {
	ResourceAttributes *ResourceAttributes `json:"resourceAttributes,omitempty"`
}

// ResourceAttributes is an action on an object.
type ResourceAttributes struct {
	Namespace   string `json:"namespace,omitempty"`
	Verb        string `json:"verb,omitempty"`
	Group       string `json:"group,omitempty"`
	Resource    string `json:"resource,omitempty"`
	Subresource string `json:"subresource,omitempty"`
}

// SubjectAccessReviewStatus is the answer.
type SubjectAccessReviewStatus struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason,omitempty"`
}

// RBACGroup is the API group of Role and RoleBinding, and of users and groups in them.
const RBACGroup = "rbac.authorization.k8s.io"

// Kinds of Subject.
const (
	UserKind           = "User"
	GroupKind          = "Group"
	ServiceAccountKind = "ServiceAccount"
)

// Role is a set of rights in a namespace (rbac.authorization.k8s.io/v1).
type Role struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Rules             []PolicyRule `json:"rules"`
}

// PolicyRule is one right, or several alike.
type PolicyRule struct {
	Verbs     []string `json:"verbs"`
	APIGroups []string `json:"apiGroups,omitempty"`
	Resources []string `json:"resources,omitempty"`
}

// RoleBinding gives a role to subjects (rbac.authorization.k8s.io/v1).
type RoleBinding struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Subjects          []Subject `json:"subjects,omitempty"`
	RoleRef           RoleRef   `json:"roleRef"`
}

// Subject is a user, a group or a ServiceAccount.
type Subject struct {
	Kind      string `json:"kind"`
	APIGroup  string `json:"apiGroup,omitempty"`
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

// RoleRef names the role of a binding.
type RoleRef struct {
	APIGroup string `json:"apiGroup"`
	Kind     string `json:"kind"`
	Name     string `json:"name"`
}
