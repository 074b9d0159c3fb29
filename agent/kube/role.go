package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// RoleConfig says what a Role is to allow, and to whom.
type RoleConfig struct {
	Name      string // of Role and RoleBinding; empty = borrownet
	Namespace string // empty = left to kubectl
	Features  []Feature
	Subjects  []string // user:NAME, group:NAME or serviceaccount:NAMESPACE/NAME; none = no RoleBinding
}

const roleHead = `# What "borrownet up", run, status and down need in a namespace, and nothing else.
# Who may patch pods/ephemeralcontainers may read every Secret of the namespace through
# the environment of such a container: "borrownet policy" prints what closes that.
`

// RBAC returns the YAML of the smallest Role that lets its subjects use
// borrownet in a namespace, and of the binding to them.
func RBAC(cfg RoleConfig) ([]byte, error) {
	if cfg.Name == "" {
		cfg.Name = "borrownet"
	}
	if err := checkNames(cfg); err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Name: cfg.Name, Namespace: cfg.Namespace}
	role := &api.Role{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.RBACGroup + "/v1", Kind: "Role"},
		ObjectMeta: meta,
		Rules:      rules(cfg.Features),
	}
	out := []byte(roleHead)
	doc, err := document(role)
	if err != nil {
		return nil, err
	}
	out = append(out, doc...)
	if len(cfg.Subjects) == 0 {
		return out, nil
	}
	binding := &api.RoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.RBACGroup + "/v1", Kind: "RoleBinding"},
		ObjectMeta: meta,
		RoleRef:    api.RoleRef{APIGroup: api.RBACGroup, Kind: "Role", Name: cfg.Name},
	}
	for _, text := range cfg.Subjects {
		s, err := parseSubject(text)
		if err != nil {
			return nil, err
		}
		binding.Subjects = append(binding.Subjects, s)
	}
	if doc, err = document(binding); err != nil {
		return nil, err
	}
	return append(append(out, "---\n"...), doc...), nil
}

// rules are one rule for each resource.
func rules(features []Feature) []api.PolicyRule {
	var out []api.PolicyRule
	for _, p := range permissions() {
		if !p.neededFor(features) {
			continue
		}
		i := slices.IndexFunc(out, func(r api.PolicyRule) bool { return r.APIGroups[0] == p.Group && r.Resources[0] == p.Resource })
		if i < 0 {
			i = len(out)
			out = append(out, api.PolicyRule{APIGroups: []string{p.Group}, Resources: []string{p.Resource}})
		}
		if !slices.Contains(out[i].Verbs, p.Verb) {
			out[i].Verbs = append(out[i].Verbs, p.Verb)
		}
	}
	return out
}

func checkNames(cfg RoleConfig) error {
	if bad := validation.IsDNS1123Subdomain(cfg.Name); bad != nil {
		return fmt.Errorf("%q is no name of a Role: %s", cfg.Name, bad[0])
	}
	if cfg.Namespace == "" {
		return nil
	}
	if bad := validation.IsDNS1123Label(cfg.Namespace); bad != nil {
		return fmt.Errorf("%q is no name of a namespace: %s", cfg.Namespace, bad[0])
	}
	return nil
}

// parseSubject reads user:NAME, group:NAME or serviceaccount:NAMESPACE/NAME.
func parseSubject(text string) (api.Subject, error) {
	kind, name, _ := strings.Cut(text, ":")
	wrong := fmt.Errorf("%q is none of user:NAME, group:NAME and serviceaccount:NAMESPACE/NAME", text)
	if name == "" || strings.ContainsFunc(name, unicode.IsControl) {
		return api.Subject{}, wrong
	}
	switch kind {
	case "user":
		return api.Subject{APIGroup: api.RBACGroup, Kind: api.UserKind, Name: name}, nil
	case "group":
		return api.Subject{APIGroup: api.RBACGroup, Kind: api.GroupKind, Name: name}, nil
	case "serviceaccount":
		namespace, account, _ := strings.Cut(name, "/")
		if validation.IsDNS1123Label(namespace) != nil || validation.IsDNS1123Subdomain(account) != nil {
			return api.Subject{}, wrong
		}
		return api.Subject{Kind: api.ServiceAccountKind, Namespace: namespace, Name: account}, nil
	}
	return api.Subject{}, wrong
}

// escapeControls escapes the control characters that JSON may have in its strings as they
// are, and YAML may not.
func escapeControls(b []byte) []byte {
	var out bytes.Buffer
	for _, r := range string(b) {
		if unicode.IsControl(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.Bytes()
}

// document encodes an object for kubectl.
func document(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err == nil {
		b, err = yaml.JSONToYAML(escapeControls(b))
	}
	if err != nil {
		return nil, fmt.Errorf("encode YAML: %w", err)
	}
	return bytes.ReplaceAll(b, []byte("  creationTimestamp: null\n"), nil), nil
}
