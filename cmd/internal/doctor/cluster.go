package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/netstack/wg"
)

// server is what only a real cluster has. kube.Client is one.
type server interface {
	Server() string
	Version(ctx context.Context) (string, error)
	User(ctx context.Context) string
	CheckAccess(ctx context.Context, namespace string) ([]kube.Access, error)
	Grant(user, namespace string, f kube.Feature) string
}

// Borrow is what somebody wants of a cluster.
type Borrow struct {
	Connect session.Connect
	Request session.Request // Ref is empty unless a pod was named
	NoImage error           // why Request has no image, if one is needed
}

// Check asks the cluster, which it does not change. What it may not ask is no failure.
func (b *Borrow) Check(ctx context.Context) []Check {
	cluster, err := b.Connect(b.Request.Kube)
	if err != nil {
		return []Check{failed("kubeconfig", session.Explain(err))}
	}
	defer cluster.Close()
	checks := []Check{ok("kubeconfig", fmt.Sprintf("context %s, namespace %s", cluster.Context(), cluster.Namespace()))}
	if s, real := cluster.(server); real {
		reached, more := b.askServer(ctx, s, cluster.Namespace())
		checks = append(checks, more...)
		if !reached {
			return checks
		}
	}
	checks = append(checks, b.image()...)
	if b.Request.Ref != "" {
		checks = append(checks, b.target(ctx, cluster)...)
	}
	return checks
}

func (b *Borrow) askServer(ctx context.Context, s server, namespace string) (reached bool, checks []Check) {
	start := time.Now()
	version, err := s.Version(ctx)
	if err != nil {
		return false, []Check{failed("api server", session.Explain(err))}
	}
	took := time.Since(start).Round(time.Millisecond)
	if version == "" {
		version = "which does not say its version,"
	}
	checks = []Check{ok("api server", fmt.Sprintf("%s, Kubernetes %s answers in %v", s.Server(), version, took))}
	user := s.User(ctx)
	if user != "" {
		checks = append(checks, ok("user", user))
	}
	return true, append(checks, rights(ctx, s, namespace, user, b.features())...)
}

// features are what the agent that is wanted needs rights for.
func (b *Borrow) features() []kube.Feature {
	if b.Request.Image == kube.TargetImage {
		return []kube.Feature{"", kube.TargetAsImage}
	}
	return []kube.Feature{""}
}

// rights says which permissions are missing, of those that needed features take and of
// the others.
func rights(ctx context.Context, s server, namespace, user string, needed []kube.Feature) []Check {
	list, err := s.CheckAccess(ctx, namespace)
	if err != nil {
		return []Check{warn("rights", fault.From(session.Explain(err)).Error(), "borrownet up --dry-run --pod NAME shows whether they suffice")}
	}
	var checks []Check
	overAttach := kube.OnlyAttach(list)
	missing := map[kube.Feature][]string{}
	var lacking, spare []kube.Feature // features with something missing
	for _, a := range list {
		if a.Allowed {
			continue
		}
		of := &spare
		switch {
		case a.With != "", a.Feature == kube.OverAttach: // wanted by few
			continue
		case overAttach && a.Resource == "pods/portforward":
			continue
		case slices.Contains(needed, a.Feature):
			of = &lacking
		}
		if missing[a.Feature] == nil {
			*of = append(*of, a.Feature)
		}
		missing[a.Feature] = append(missing[a.Feature], a.String())
	}
	for _, f := range lacking {
		checks = append(checks, fail("rights", fault.Agent, fmt.Sprintf("you may not %s in namespace %s", strings.Join(missing[f], ", "), namespace),
			"an administrator can grant it: "+s.Grant(user, namespace, f)))
	}
	switch {
	case overAttach:
		checks = append(checks, ok("rights", "not to port-forward: the link goes over attach, and what the agent sends is, encrypted, in its container's log"))
	case len(lacking) == 0:
		checks = append(checks, ok("rights", "all that is needed in namespace "+namespace))
	}
	for _, f := range spare {
		checks = append(checks, ok("rights", fmt.Sprintf("not to %s, which only --%s of borrownet rbac adds", strings.Join(missing[f], ", "), f)))
	}
	return checks
}

func (b *Borrow) image() []Check {
	switch {
	case b.NoImage != nil:
		return []Check{failed("agent image", b.NoImage)}
	case b.Request.Image == "":
		return nil // the cluster's agents need none
	}
	return []Check{ok("agent image", b.Request.Image)}
}

// target resolves the target and lets the API server judge the agent.
func (b *Borrow) target(ctx context.Context, cluster session.Cluster) []Check {
	t, err := cluster.Resolve(ctx, b.Request.Ref, b.Request.Container)
	if err != nil {
		return []Check{failed("target", session.Explain(err))}
	}
	checks := []Check{ok("target", fmt.Sprintf("pod %s/%s, container %s, node %s", t.Namespace, t.Pod, t.Container, t.Node)), mesh(t)}
	if b.NoImage != nil {
		return checks
	}
	text, err := cluster.Plan(ctx, t, b.Request.Spec(t, wg.NewPrivateKey().Public().String()))
	switch {
	case errors.Is(err, context.Canceled):
		return append(checks, failed("dry run", err))
	case err != nil:
		return append(checks, failed("dry run", session.Explain(err)))
	}
	// The plan's first line is a comment that says it all.
	first, _, _ := strings.Cut(string(text), "\n")
	return append(checks, ok("dry run", strings.TrimPrefix(first, "# ")))
}
