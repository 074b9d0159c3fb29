package api

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AdmissionVersion is the API version of ValidatingAdmissionPolicy and its binding.
const AdmissionVersion = "admissionregistration.k8s.io/v1"

// Values of the fields below.
const (
	Fail       = "Fail"       // FailurePolicy: what cannot be judged is refused
	Equivalent = "Equivalent" // MatchPolicy: whatever version a request is written in
	Create     = "CREATE"     // Operations
	Update     = "UPDATE"
	Deny       = "Deny" // ValidationActions
)

// ValidatingAdmissionPolicy is a rule in CEL that requests must keep.
type ValidatingAdmissionPolicy struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ValidatingAdmissionPolicySpec `json:"spec,omitempty"`
}

// ValidatingAdmissionPolicySpec is what is judged, and how.
type ValidatingAdmissionPolicySpec struct {
	MatchConstraints *MatchResources `json:"matchConstraints,omitempty"`
	Validations      []Validation    `json:"validations,omitempty"`
	FailurePolicy    *string         `json:"failurePolicy,omitempty"`
	Variables        []Variable      `json:"variables,omitempty"`
}

// MatchResources says which requests are judged.
type MatchResources struct {
	NamespaceSelector *metav1.LabelSelector     `json:"namespaceSelector,omitempty"`
	ResourceRules     []NamedRuleWithOperations `json:"resourceRules,omitempty"`
	MatchPolicy       *string                   `json:"matchPolicy,omitempty"`
}

// NamedRuleWithOperations are requests for resources.
type NamedRuleWithOperations struct {
	RuleWithOperations
}

// RuleWithOperations are operations on resources.
type RuleWithOperations struct {
	Operations []string `json:"operations,omitempty"`
	Rule
}

// Rule are resources.
type Rule struct {
	APIGroups   []string `json:"apiGroups,omitempty"`
	APIVersions []string `json:"apiVersions,omitempty"`
	Resources   []string `json:"resources,omitempty"`
}

// Validation is an expression that must hold, and what is said where it does not.
type Validation struct {
	Expression string `json:"expression"`
	Message    string `json:"message,omitempty"`
}

// Variable is a value that expressions share.
type Variable struct {
	Name       string `json:"name"`
	Expression string `json:"expression"`
}

// ValidatingAdmissionPolicyBinding puts a policy in force.
type ValidatingAdmissionPolicyBinding struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ValidatingAdmissionPolicyBindingSpec `json:"spec,omitempty"`
}

// ValidatingAdmissionPolicyBindingSpec says where, and what happens to who breaks it.
type ValidatingAdmissionPolicyBindingSpec struct {
	PolicyName        string          `json:"policyName,omitempty"`
	MatchResources    *MatchResources `json:"matchResources,omitempty"`
	ValidationActions []string        `json:"validationActions,omitempty"`
}
