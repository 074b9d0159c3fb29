package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Access is one permission that borrownet uses, in one namespace.
type Access struct {
	Verb     string  `json:"verb"`
	Group    string  `json:"group"`
	Resource string  `json:"resource"` // resource or resource/subresource
	Feature  Feature `json:"feature"`  // what needs it; empty = everything
	With     Feature `json:"with"`     // needed only together with this one; empty = always
	Allowed  bool    `json:"allowed"`
	Why      string  `json:"why"` // the authorizer's reason, often empty

	unless Feature // not needed together with this one; empty = always
}

func (a Access) String() string { return a.Verb + " " + a.Resource }

// Feature is something that not everybody uses and that needs permissions of
// its own.
type Feature string

// The features.
const (
	Workloads     Feature = "workloads"    // targets named as deploy/x, svc/x or by a bare name
	TargetAsImage Feature = "target-image" // agents started from the target's own image
	OverAttach    Feature = "attach"       // the link over attach, in place of port-forward
	WebSocket     Feature = "websocket"    // calls, or where a proxy before the API server lets no SPDY pass
	Events        Feature = "events"       // telling an image that is slow to come from a slow node
	Google        Feature = "gke"          // recognising GKE's workload identity
)

// permissions are what borrownet needs, and nothing that it can do without:
// workloads are not read, since pods say whom they belong to. Kubernetes
// before 1.35 authorizes a WebSocket as get, later ones as create as well; SPDY
// is create.
func permissions() []Access {
	return []Access{
		{Verb: "get", Resource: "pods"},
		{Verb: "watch", Resource: "pods"},
		{Verb: "patch", Resource: "pods/ephemeralcontainers"},
		{Verb: "get", Resource: "pods/log"},
		{Verb: "create", Resource: "pods/portforward", unless: OverAttach},
		{Verb: "list", Resource: "pods", Feature: Workloads},
		{Verb: "get", Resource: "services", Feature: Workloads},
		{Verb: "create", Resource: "pods/attach", Feature: TargetAsImage},
		{Verb: "create", Resource: "pods/attach", Feature: OverAttach},
		{Verb: "get", Resource: "pods/portforward", Feature: WebSocket, unless: OverAttach},
		{Verb: "get", Resource: "pods/attach", Feature: TargetAsImage, With: WebSocket},
		{Verb: "get", Resource: "pods/attach", Feature: OverAttach, With: WebSocket},
		{Verb: "list", Resource: "events", Feature: Events},
		{Verb: "get", Resource: "serviceaccounts", Feature: Google},
	}
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

// OnlyAttach reports whether rights let the link go over attach and nothing else.
func OnlyAttach(rights []Access) bool {
	may := func(resource string) bool {
		return slices.ContainsFunc(rights, func(a Access) bool { return a.Allowed && a.Verb == "create" && a.Resource == resource })
	}
	return may("pods/attach") && !may("pods/portforward")
}

// requireAccess fails if the user lacks a permission that attaching needs.
// Where the question itself is not allowed, the answer shows later.
func (c *Client) requireAccess(ctx context.Context, namespace string, spec AgentSpec) error {
	answers, err := c.reviewAll(ctx, namespace, needed(spec))
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		c.log.Debug("review access", "namespace", namespace, "err", err)
		return nil
	}
	return c.lacking(ctx, namespace, answers)
}

// needed are the permissions without which no agent of spec can be placed.
func needed(spec AgentSpec) []Access {
	var features []Feature
	if spec.Image == TargetImage {
		features = append(features, TargetAsImage)
	}
	if spec.Stdio {
		features = append(features, OverAttach)
	}
	var out []Access
	for _, p := range permissions() {
		if p.neededFor(features) && !slices.ContainsFunc(out, func(o Access) bool { return o.String() == p.String() }) {
			out = append(out, p)
		}
	}
	return out
}

// neededFor reports whether borrownet needs the permission to do what features say.
func (a Access) neededFor(features []Feature) bool {
	has := func(f Feature) bool { return f == "" || slices.Contains(features, f) }
	return has(a.Feature) && has(a.With) && (a.unless == "" || !slices.Contains(features, a.unless))
}

// lacking explains the permissions among answers that the user has not, or
// returns nil.
func (c *Client) lacking(ctx context.Context, namespace string, answers []Access) error {
	var missing []Access
	var all []string
	for _, a := range answers {
		if !a.Allowed {
			missing = append(missing, a)
			all = append(all, a.String())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	e := &Error{ID: idRight, Op: "attach to", Object: "pods in namespace " + namespace,
		Reason: fmt.Sprintf("you may not %s in namespace %s (RBAC)", strings.Join(all, ", "), namespace)}
	first := missing[0]
	_, e.Hint = c.missing(c.User(ctx), namespace, grant{first.Verb, first.Group, first.Resource})
	return e
}

// User returns the name that the API server knows the user by, or "".
func (c *Client) User(ctx context.Context) string {
	body, err := json.Marshal(api.SelfSubjectReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "SelfSubjectReview"},
	})
	if err != nil {
		return ""
	}
	var answer api.SelfSubjectReview
	err = c.do(ctx, request{
		verb: "create", group: "authentication.k8s.io", resource: "selfsubjectreviews",
		contentType: "application/json", body: body,
	}, &answer)
	if err != nil { // Kubernetes before 1.28
		c.log.Debug("ask for the user's name", "err", err)
	}
	return answer.Status.UserInfo.Username
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
	body, err := json.Marshal(api.SelfSubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"},
		Spec: api.SelfSubjectAccessReviewSpec{ResourceAttributes: &api.ResourceAttributes{
			Namespace: namespace, Verb: a.Verb, Group: a.Group, Resource: name, Subresource: sub,
		}},
	})
	if err != nil {
		return fmt.Errorf("encode access review: %w", err)
	}
	var answer api.SelfSubjectAccessReview
	err = c.do(ctx, request{
		verb: "create", group: "authorization.k8s.io", resource: "selfsubjectaccessreviews",
		contentType: "application/json", body: body,
	}, &answer)
	a.Allowed, a.Why = answer.Status.Allowed, answer.Status.Reason
	return err
}
