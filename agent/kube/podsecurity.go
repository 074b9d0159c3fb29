package kube

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// meshInits are what meshes write their redirect rules with where no CNI
// plugin does it.
func meshInits() []string { return []string{"istio-init", "linkerd-init"} }

// Pod Security admission names containers as in: pod or containers "a", "b" must set …
var (
	offenderLists = regexp.MustCompile(`containers? ("[^"]+"(?:, "[^"]+")*)`)
	offender      = regexp.MustCompile(`"([^"]+)"`)
)

// explainPodSecurity fills e in for a refusal by Pod Security admission. It
// judges the whole pod, whatever is changed in it: a pod that came before its
// namespace got the level takes no ephemeral container, however harmless.
func explainPodSecurity(c *Client, e *Error, namespace, level, text string) {
	e.ID = "BN1202"
	own := podsOwnOffenders(text)
	if len(own) == 0 {
		e.Reason = fmt.Sprintf("policy PodSecurity %q of namespace %s refuses it: %s", level, namespace, oneLine(text))
		e.Hint = "see the namespace's level: " + c.kubectl("", "get namespace "+namespace+" --show-labels")
		return
	}
	e.Reason = fmt.Sprintf("the pod itself violates PodSecurity %q of namespace %s, by its own %s and not by borrownet's agent, and so nothing may be added to it: %s",
		level, namespace, strings.Join(own, ", "), oneLine(text))
	lower := c.kubectl("", "label namespace "+namespace+" --overwrite pod-security.kubernetes.io/enforce=privileged")
	e.Hint = "make the pod comply, or have an administrator lower the namespace's level: " + lower
	if slices.ContainsFunc(own, func(name string) bool { return slices.Contains(meshInits(), name) }) {
		e.Hint = "an administrator can install the mesh's CNI plugin, with which pods need no such container (then restart the pod), or lower the namespace's level: " + lower
	}
}

// podsOwnOffenders returns the containers that a message blames and that are
// no agents.
func podsOwnOffenders(message string) []string {
	var own []string
	for _, list := range offenderLists.FindAllStringSubmatch(message, -1) {
		for _, m := range offender.FindAllStringSubmatch(list[1], -1) {
			if !strings.HasPrefix(m[1], agentPrefix) && !slices.Contains(own, m[1]) {
				own = append(own, m[1])
			}
		}
	}
	return own
}
