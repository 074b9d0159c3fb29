package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Access is one permission that borrownet uses, in one namespace.
type Access struct {
	Verb     string `json:"verb"`
	Group    string `json:"group"`
	Resource string `json:"resource"` // resource or resource/subresource
	Optional bool   `json:"optional"` // only some ways to name a target need it
	Allowed  bool   `json:"allowed"`
	Why      string `json:"why"` // the authorizer's reason, often empty
}

// permissions are what borrownet needs. Kubernetes before 1.35 authorizes a
// WebSocket port-forward as get, later ones as create as well; SPDY is create.
func permissions() []Access {
	out := []Access{
		{Verb: "get", Resource: "pods"},
		{Verb: "watch", Resource: "pods"},
		{Verb: "patch", Resource: "pods/ephemeralcontainers"},
		{Verb: "get", Resource: "pods/log"},
		{Verb: "create", Resource: "pods/portforward"},
		{Verb: "get", Resource: "pods/portforward", Optional: true},
		{Verb: "list", Resource: "pods", Optional: true},
		{Verb: "list", Resource: "events", Optional: true},
	}
	for _, k := range kinds() {
		if !k.rare {
			out = append(out, Access{Verb: "get", Group: k.group, Resource: k.resource, Optional: true})
		}
	}
	return out
}

// CheckAccess asks the API server which of the permissions that borrownet
// needs the user has in a namespace; "" means the client's namespace.
func (c *Client) CheckAccess(ctx context.Context, namespace string) ([]Access, error) {
	if namespace == "" {
		namespace = c.namespace
	}
	out, err := c.reviewAll(ctx, namespace, permissions())
	if err != nil {
		return nil, c.explain("check access in", "namespace "+namespace, err)
	}
	return out, nil
}

// requireAccess fails if the user lacks a permission that attaching needs.
// Where the question itself is not allowed, the answer shows later.
func (c *Client) requireAccess(ctx context.Context, namespace string) error {
	var needed []Access
	for _, p := range permissions() {
		if !p.Optional {
			needed = append(needed, p)
		}
	}
	answers, err := c.reviewAll(ctx, namespace, needed)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		c.log.Debug("review access", "namespace", namespace, "err", err)
		return nil
	}
	var missing []Access
	for _, a := range answers {
		if !a.Allowed {
			missing = append(missing, a)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	first := missing[0]
	e := &Error{Op: "attach to", Object: "pods in namespace " + namespace}
	e.Reason, e.Hint = c.missing("", namespace, grant{first.Verb, first.Group, first.Resource})
	if len(missing) > 1 {
		var all []string
		for _, m := range missing {
			all = append(all, m.Verb+" "+m.Resource)
		}
		e.Reason = fmt.Sprintf("you may not %s in namespace %s (RBAC)", strings.Join(all, ", "), namespace)
		e.Hint = "an administrator can grant it with the Role in borrownet's documentation; check with: " +
			c.kubectl(namespace, "auth can-i "+first.Verb+" "+strings.Replace(first.Resource, "/", " --subresource=", 1))
	}
	return e
}

// reviewAll fills in the answers to all questions at once.
func (c *Client) reviewAll(ctx context.Context, namespace string, list []Access) ([]Access, error) {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() { errs[i] = c.review(ctx, namespace, &list[i]) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (c *Client) review(ctx context.Context, namespace string, a *Access) error {
	name, sub, _ := strings.Cut(a.Resource, "/")
	body, err := json.Marshal(authorizationv1.SelfSubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"},
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: a.Verb, Group: a.Group, Resource: name, Subresource: sub,
		}},
	})
	if err != nil {
		return fmt.Errorf("encode access review: %w", err)
	}
	var answer authorizationv1.SelfSubjectAccessReview
	err = c.do(ctx, request{
		verb: "create", group: "authorization.k8s.io", resource: "selfsubjectaccessreviews",
		contentType: "application/json", body: body,
	}, &answer)
	a.Allowed, a.Why = answer.Status.Allowed, answer.Status.Reason
	return err
}
