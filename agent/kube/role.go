package kube

import (
	"fmt"
	"slices"
	"strings"
)

// Features say what a Role is to allow beyond naming pods directly.
type Features struct {
	Workloads bool // targets named as deploy/x, svc/x or by a bare name
}

// RBAC returns the YAML of the smallest Role that lets its subjects use
// borrownet in a namespace.
func RBAC(namespace string, f Features) []byte {
	type key struct{ group, resource string }
	var order []key
	verbs := map[key][]string{}
	for _, p := range permissions() {
		lookup := p.Group != "" || p.Resource == "services" || p.Verb == "list" && p.Resource == "pods"
		if lookup && !f.Workloads {
			continue
		}
		k := key{p.Group, p.Resource}
		if !slices.Contains(order, k) {
			order = append(order, k)
		}
		verbs[k] = append(verbs[k], p.Verb)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: borrownet\n  namespace: %s\nrules:\n", namespace)
	for _, k := range order {
		fmt.Fprintf(&b, "- apiGroups: [%q]\n  resources: [%q]\n  verbs: [%s]\n", k.group, k.resource, strings.Join(verbs[k], ", "))
	}
	return []byte(b.String())
}
