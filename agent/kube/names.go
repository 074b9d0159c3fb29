package kube

import (
	"fmt"
	"regexp"
	"strings"
)

// kind is a type of object that leads to pods.
type kind struct {
	short    string // as kubectl abbreviates it
	singular string
	group    string
	resource string
	flat     bool // spec.selector is a map, not a LabelSelector
	rare     bool // found by TYPE/NAME only: few users have or may read them
}

// kinds are the types that a reference may name, in the order in which a bare
// name is looked up after pods.
func kinds() []kind {
	return []kind{
		{short: "deploy", singular: "deployment", group: "apps", resource: "deployments"},
		{short: "sts", singular: "statefulset", group: "apps", resource: "statefulsets"},
		{short: "ds", singular: "daemonset", group: "apps", resource: "daemonsets"},
		{short: "rs", singular: "replicaset", group: "apps", resource: "replicasets"},
		{short: "job", singular: "job", group: "batch", resource: "jobs"},
		{short: "svc", singular: "service", resource: "services", flat: true},
		{short: "rc", singular: "replicationcontroller", resource: "replicationcontrollers", flat: true, rare: true},
	}
}

func podKind() kind { return kind{short: "po", singular: "pod", resource: "pods"} }

// findKind returns the kind that a word means: a short, singular or plural
// name, in any case, with or without the group behind a dot.
func findKind(word string) (kind, bool) {
	name, rest, qualified := strings.Cut(strings.ToLower(word), ".")
	for _, k := range append(kinds(), podKind()) {
		if name != k.short && name != k.singular && name != k.resource {
			continue
		}
		if !qualified || k.group != "" && (rest == k.group || strings.HasSuffix(rest, "."+k.group)) || k.group == "" && rest == "v1" {
			return k, true
		}
	}
	return kind{}, false
}

// validNamespace reports whether s can be the name of a namespace (RFC 1123's
// label), and so cannot be taken for another part of a path.
func validNamespace(s string) bool {
	return regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`).MatchString(s)
}

// reference is what a user calls a pod.
type reference struct {
	kind kind // zero for a bare name
	name string
}

// parseReference reads NAME or TYPE/NAME.
func parseReference(s string) (reference, error) {
	var ref reference
	word, name, typed := strings.Cut(s, "/")
	if !typed {
		name = word
	}
	if !regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`).MatchString(name) {
		return ref, &Error{Op: "find", Object: fmt.Sprintf("%q", s), Reason: "it is neither NAME nor TYPE/NAME",
			Hint: "name a pod, or a workload or service like deploy/api or svc/api"}
	}
	ref.name = name
	if !typed {
		return ref, nil
	}
	k, ok := findKind(word)
	if !ok {
		known := []string{"pod"}
		for _, k := range kinds() {
			known = append(known, k.short)
		}
		return ref, &Error{Op: "find", Object: s, Reason: fmt.Sprintf("%q is no type that has pods", word),
			Hint: "known types: " + strings.Join(known, ", ")}
	}
	ref.kind = k
	return ref, nil
}
