package kube

import (
	"regexp"
	"slices"
	"strings"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Environment says which variables a container has by its spec. The agent tells
// their values; it has no say in which there are.
type Environment struct {
	Names    []string `json:"names,omitempty"`    // declared one by one
	Prefixes []string `json:"prefixes,omitempty"` // of what whole ConfigMaps and Secrets add; "" is any name
}

// environmentOf reads the spec of a container.
func environmentOf(ct *api.Container) Environment {
	var e Environment
	for _, v := range ct.Env {
		e.Names = append(e.Names, v.Name)
	}
	for _, from := range ct.EnvFrom {
		e.Prefixes = append(e.Prefixes, from.Prefix)
	}
	return e
}

// serviceVariable is what the kubelet adds for each Service of the namespace.
var serviceVariable = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// Declares reports whether the container has a variable of that name, or may
// have one: the keys of ConfigMaps and Secrets are not in its spec.
func (e Environment) Declares(name string) bool {
	return slices.Contains(e.Names, name) || serviceVariable.MatchString(name) ||
		slices.ContainsFunc(e.Prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
