package kube

import (
	"cmp"
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// AllNamespaces asks Offers for every namespace.
const AllNamespaces = "*"

// Offers are what can be borrowed, and who does. Its form is promised to
// programs that read it (docs/output.md).
type Offers struct {
	Context    string        `json:"context"`
	Namespaces []Surrounding `json:"namespaces"`
	Targets    []Offer       `json:"targets"`
}

// Surrounding is what a namespace means to agents.
type Surrounding struct {
	Name string `json:"name"`
	// PodSecurity is the level that is enforced: privileged, baseline, restricted;
	// default where the namespace has no label, unknown where it may not be read.
	PodSecurity string `json:"podSecurity"`
	// Missing are the rights that `up` needs and the user lacks, as "verb resource".
	Missing []string `json:"missing,omitempty"`
	// RightsKnown says that Missing is all of them.
	RightsKnown bool `json:"rightsKnown"`
}

// Offer is a workload, or a pod that belongs to none.
type Offer struct {
	Namespace string   `json:"namespace"`
	Ref       string   `json:"ref"` // what --pod takes
	Pods      int      `json:"pods"`
	Ready     int      `json:"ready"`
	Mesh      string   `json:"mesh"`              // istio, linkerd, ambient, "" = none
	Problem   string   `json:"problem,omitempty"` // why none of its pods can be borrowed now
	Hint      string   `json:"hint,omitempty"`
	PodNames  []string `json:"podNames"`
	Nodes     []string `json:"nodes"`
	Container string   `json:"container"` // that is borrowed by default
	// Containers are all that can be borrowed with -c, of the pod that would be taken.
	Containers []string   `json:"containers"`
	Borrowers  []Borrower `json:"borrowers,omitempty"`
}

// Offers looks at the pods of a namespace; "" means the client's. Only the right
// to list pods is needed: what else may not be read is said to be unknown.
func (c *Client) Offers(ctx context.Context, namespace string) (*Offers, error) {
	object := "every namespace"
	switch namespace {
	case "":
		namespace = c.namespace
		object = "namespace " + namespace
	case AllNamespaces:
		namespace = ""
	default:
		object = "namespace " + namespace
	}
	pods, err := c.listPods(ctx, namespace, "")
	if err != nil {
		return nil, c.explain("look into", object, err)
	}
	out := &Offers{Context: c.context, Targets: c.group(pods)}
	c.nameBorrowers(ctx, out.Targets)
	out.Namespaces = c.surroundings(ctx, namespace, out.Targets)
	return out, ctx.Err()
}

// group makes one offer of the pods of each workload, in order of namespace and
// name.
func (c *Client) group(pods []api.Pod) []Offer {
	found := map[[2]string][]*api.Pod{}
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase == api.PodSucceeded || p.Status.Phase == api.PodFailed {
			continue // over: a Job's, or evicted
		}
		key := [2]string{p.Namespace, offeredAs(p)}
		found[key] = append(found[key], p)
	}
	out := make([]Offer, 0, len(found))
	for key, set := range found {
		out = append(out, c.offer(key[0], key[1], set))
	}
	slices.SortFunc(out, func(a, b Offer) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Ref, b.Ref))
	})
	return out
}

// offeredAs is what to give --pod for a pod: its workload if that is of a kind
// that Resolve knows.
func offeredAs(pod *api.Pod) string {
	if ref := workloadOf(pod); ref != "" {
		if r, err := parseReference(ref); err == nil && r.kind != (kind{}) {
			return ref
		}
	}
	return "pod/" + pod.Name
}

// offer describes a workload by its pods, of which there is one at least.
func (c *Client) offer(namespace, ref string, pods []*api.Pod) Offer {
	slices.SortFunc(pods, func(a, b *api.Pod) int {
		if bad := c.unusable(a) != nil; bad != (c.unusable(b) != nil) {
			if bad {
				return 1
			}
			return -1
		}
		return byPreference(a, b)
	})
	o := Offer{Namespace: namespace, Ref: ref, Pods: len(pods), Mesh: meshKind(pods[0])}
	usable := false
	nodes := sets.New[string]()
	for _, p := range pods {
		o.PodNames = append(o.PodNames, p.Name)
		if p.Spec.NodeName != "" {
			nodes.Insert(p.Spec.NodeName)
		}
		switch bad := c.unusable(p); {
		case bad == nil:
			usable = true
			if isReady(p) {
				o.Ready++
			}
		case o.Problem == "":
			o.Problem, o.Hint = bad.reason, bad.hint
		}
		for _, a := range agentsOf(p) {
			if a.State != StateTerminated {
				o.Borrowers = append(o.Borrowers, borrower(a))
			}
		}
	}
	if usable {
		o.Problem, o.Hint = "", ""
	}
	o.Nodes = sets.List(nodes)
	if ct, err := c.findContainer(pods[0], ""); err == nil {
		o.Container = ct.Name
	}
	for _, ct := range pods[0].Spec.Containers {
		o.Containers = append(o.Containers, ct.Name)
	}
	return o
}

// meshKind names the mesh that a pod is in.
func meshKind(pod *api.Pod) string {
	switch m := meshOf(pod); {
	case m.Envoy:
		return "istio"
	case m.Proxy != "":
		return "linkerd"
	case pod.Annotations["ambient.istio.io/redirection"] == "enabled":
		return "ambient"
	}
	return ""
}

const enforceLabel = "pod-security.kubernetes.io/enforce"

// surroundings describes the namespaces of targets, or the one that was asked
// for, for which the user's rights are looked at too.
func (c *Client) surroundings(ctx context.Context, namespace string, targets []Offer) []Surrounding {
	if namespace != "" {
		s := Surrounding{Name: namespace, PodSecurity: "unknown"}
		var ns api.Namespace
		err := c.do(ctx, request{verb: "get", resource: "namespaces", name: namespace}, &ns)
		if err == nil {
			s.PodSecurity = enforced(ns.Labels)
		}
		if rights, err := c.CheckAccess(ctx, namespace); err == nil {
			s.RightsKnown = true
			attach := OnlyAttach(rights)
			for _, a := range rights {
				if !a.Allowed && (a.Feature == "" || a.Feature == Workloads) && (!attach || a.unless != OverAttach) {
					s.Missing = append(s.Missing, a.String())
				}
			}
		}
		return []Surrounding{s}
	}
	levels := map[string]string{}
	if list, err := c.listNamespaces(ctx); err == nil {
		for _, ns := range list {
			levels[ns.Name] = enforced(ns.Labels)
		}
	}
	var out []Surrounding
	for _, o := range targets {
		if n := len(out); n == 0 || out[n-1].Name != o.Namespace {
			out = append(out, Surrounding{Name: o.Namespace, PodSecurity: cmp.Or(levels[o.Namespace], "unknown")})
		}
	}
	return out
}

func enforced(labels map[string]string) string { return cmp.Or(labels[enforceLabel], "default") }

func (c *Client) listNamespaces(ctx context.Context) ([]api.Namespace, error) {
	var list api.NamespaceList
	if err := c.do(ctx, request{verb: "list", resource: "namespaces"}, &list); err != nil {
		return nil, err
	}
	return list.Items, nil
}

// ListNamespaces returns the names of the namespaces, if the user may list them.
func (c *Client) ListNamespaces(ctx context.Context) ([]string, error) {
	list, err := c.listNamespaces(ctx)
	if err != nil {
		return nil, c.explain("list", "namespaces", err)
	}
	var names []string
	for _, ns := range list {
		names = append(names, ns.Name)
	}
	return names, nil
}
