package kube

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Texts of k8s.io/apiserver and pod-security-admission: who refuses is said
// nowhere else.
const (
	patternRBAC    = `User "([^"]*)" cannot ([a-z]+) (?:resource "([^"]+)"|path )`
	patternPolicy  = `ValidatingAdmissionPolicy '([^']+)'`
	patternWebhook = `admission webhook "([^"]+)" denied the request`
	patternPSA     = `violates PodSecurity "([^"]+)"`
	patternSCC     = `unable to validate against any security context constraint`
)

// explainForbidden fills e in for a 403: a missing permission, or else an
// admission plugin that explainPolicy does not know by name.
func (c *Client) explainForbidden(e *Error, r request, message string) {
	m := regexp.MustCompile(patternRBAC).FindStringSubmatch(message)
	if m == nil {
		e.ID = "BN1204"
		e.Reason = "the cluster's policy refuses it: " + oneLine(message)
		e.Hint = "ask the administrator of the cluster, quoting the message above"
		return
	}
	verb, resource := m[2], r.full()
	if m[3] != "" {
		resource = m[3]
	}
	e.ID = idRight
	e.Reason, e.Hint = c.missing(m[1], r.namespace, grant{verb, r.group, resource})
}

// grant is one thing that a role allows.
type grant struct{ verb, group, resource string }

// missing words the reason and the hint for a permission that user lacks.
func (c *Client) missing(user, namespace string, g grant) (reason, hint string) {
	where := "in namespace " + namespace
	if namespace == "" {
		where = "in the cluster"
	}
	who := "you"
	if user != "" {
		who = "user " + user
	}
	reason = fmt.Sprintf("%s may not %s %s %s (RBAC)", who, g.verb, g.resource, where)
	for _, p := range permissions() {
		if p.Verb == g.verb && p.Group == g.group && p.Resource == g.resource && namespace != "" {
			return reason, "an administrator can grant it: " + c.Grant(user, namespace, p.Feature)
		}
	}
	if user == "" {
		user = "USER"
	}
	resource := g.resource
	if g.group != "" {
		name, sub, _ := strings.Cut(resource, "/")
		resource = strings.TrimSuffix(name+"."+g.group+"/"+sub, "/")
	}
	role := "borrownet-" + strings.NewReplacer("/", "-", ".", "-").Replace(g.verb+"-"+g.resource)
	hint = fmt.Sprintf("an administrator can grant it: %s && %s",
		c.kubectl(namespace, fmt.Sprintf("create role %s --verb=%s --resource=%s", role, g.verb, resource)),
		c.kubectl(namespace, fmt.Sprintf("create rolebinding %s --role=%s --user=%s", role, role, user)))
	return reason, hint
}

// Grant is the command that grants user what borrownet needs, with
// targets named in every way.
func (c *Client) Grant(user, namespace string, f Feature) string {
	subject := "user:" + user
	if account, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		subject = "serviceaccount:" + strings.Replace(account, ":", "/", 1)
	}
	if user == "" {
		subject = "user:NAME"
	} else if !plainWord.MatchString(subject) {
		subject = "'" + strings.ReplaceAll(subject, "'", `'\''`) + "'"
	}
	flags := "--" + string(Workloads)
	if f != "" && f != Workloads {
		flags += " --" + string(f)
	}
	return fmt.Sprintf("borrownet rbac -n %s %s --subject %s | %s", namespace, flags, subject, c.kubectl("", "apply -f -"))
}

// plainWord is what a shell takes as it is.
var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// explainPolicy fills e in if an admission policy that can be named refused
// the request, and reports whether it did. Webhooks choose their status code,
// so the code does not tell.
func explainPolicy(c *Client, e *Error, r request, status *apierrors.StatusError) bool {
	message := status.ErrStatus.Message
	name := func(pattern string) string {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(message); m != nil {
			return m[1]
		}
		return ""
	}
	after := func(mark string) string {
		if _, s, ok := strings.Cut(message, mark); ok {
			return oneLine(strings.TrimLeft(s, ": "))
		}
		return oneLine(message)
	}
	if level := name(patternPSA); level != "" {
		_, text, _ := strings.Cut(message, `PodSecurity "`+level+`"`)
		explainPodSecurity(c, e, r.namespace, level, strings.TrimLeft(text, ": "))
		return true
	}
	if policy := name(patternPolicy); policy != "" {
		e.ID = "BN1203"
		e.Reason = fmt.Sprintf("policy ValidatingAdmissionPolicy %q refuses it: %s", policy, after("denied request"))
		e.Hint = "ask its owner to allow borrownet's agent: " + c.kubectl("", "get validatingadmissionpolicy "+policy+" -o yaml")
		return true
	}
	if hook := name(patternWebhook); hook != "" {
		e.ID = "BN1204"
		e.Reason = fmt.Sprintf("policy webhook %q refuses it: %s", hook, after("denied the request"))
		e.Hint = "ask its owner to allow borrownet's agent (pods/ephemeralcontainers in namespace " + r.namespace + ")"
		return true
	}
	if status.ErrStatus.Code == http.StatusForbidden && strings.Contains(message, patternSCC) {
		e.ID = "BN1204"
		e.Reason = "policy SecurityContextConstraints refuses it: " + oneLine(message)
		e.Hint = "ask an administrator which constraint this account may use: " + c.kubectl("", "get scc")
		return true
	}
	return false
}
