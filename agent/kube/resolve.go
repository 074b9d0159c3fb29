package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Resolve finds the pod that ref means in the client's namespace: a pod,
// TYPE/NAME as kubectl writes it, or the bare name of a pod, a workload or a
// service. Of several pods it takes the newest ready one. An empty container
// means the pod's default.
func (c *Client) Resolve(ctx context.Context, ref, container string) (*Target, error) {
	r, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	switch {
	case r.kind == podKind():
		pod, err := c.getPod(ctx, c.namespace, r.name)
		if err != nil {
			return nil, c.notFound(ctx, "pod "+r.name, r.name, err)
		}
		return c.fromPod(ctx, pod, container)
	case r.kind != kind{}:
		set, err := c.podsOf(ctx, r.kind, r.name)
		if apierrors.IsForbidden(err) && r.kind.resource != "services" {
			set, err = c.owned(ctx, r.kind.short+"/"+r.name)
		}
		if err != nil {
			return nil, c.notFound(ctx, r.kind.short+"/"+r.name, r.name, err)
		}
		return c.fromSet(ctx, set, container)
	}
	pod, err := c.getPod(ctx, c.namespace, r.name)
	if err == nil {
		return c.fromPod(ctx, pod, container)
	}
	if !apierrors.IsNotFound(err) {
		return nil, c.explain("find", "pod "+c.namespace+"/"+r.name, err)
	}
	return c.fromBareName(ctx, r.name, container)
}

// fromPod makes a target of a pod that the user named.
func (c *Client) fromPod(ctx context.Context, pod *api.Pod, container string) (*Target, error) {
	if p := c.unusable(pod); p != nil {
		return nil, &Error{ID: idNotRunning, Op: "borrow", Object: "pod " + pod.Namespace + "/" + pod.Name, Reason: p.reason, Hint: p.hint}
	}
	return c.target(ctx, pod, container, "")
}

// podSet are the pods of one workload or service.
type podSet struct {
	ref  string // TYPE/NAME
	pods []*api.Pod
}

// key is equal for sets of the same pods.
func (s podSet) key() string {
	uids := make([]string, 0, len(s.pods))
	for _, p := range s.pods {
		uids = append(uids, string(p.UID))
	}
	slices.Sort(uids)
	return strings.Join(uids, " ")
}

// fromSet makes a target of the best pod of a set.
func (c *Client) fromSet(ctx context.Context, set podSet, container string) (*Target, error) {
	var good []*api.Pod
	var states []string
	for _, p := range set.pods {
		if bad := c.unusable(p); bad != nil {
			states = append(states, p.Name+": "+bad.reason)
			continue
		}
		good = append(good, p)
	}
	if len(good) == 0 {
		e := &Error{ID: idNotRunning, Op: "borrow", Object: set.ref + " in namespace " + c.namespace, Reason: "it has no pods",
			Hint: c.kubectl(c.namespace, "get "+set.ref+" -o wide")}
		if len(states) > 0 {
			e.Reason = "none of its pods is running: " + strings.Join(states[:min(len(states), 5)], "; ")
			e.Hint = c.kubectl(c.namespace, "get pods -o wide")
		}
		return nil, e
	}
	workload := set.ref
	best := slices.MinFunc(good, byPreference)
	if strings.HasPrefix(workload, "svc/") {
		workload = "" // a service is no workload: take the pod's own
	}
	return c.target(ctx, best, container, workload)
}

// fromBareName looks a name up among workloads and services.
func (c *Client) fromBareName(ctx context.Context, name, container string) (*Target, error) {
	sets, errs := c.lookUp(ctx, name)
	var refused []error
	for _, err := range errs {
		switch {
		case apierrors.IsForbidden(err):
			refused = append(refused, err)
		case !apierrors.IsNotFound(err):
			return nil, c.explain("find", name+" in namespace "+c.namespace, err)
		}
	}
	if len(sets) == 0 {
		if len(refused) > 0 {
			return c.fromOwners(ctx, name, container, refused)
		}
		return nil, c.notFound(ctx, name, name, nil)
	}
	distinct := map[string]bool{}
	for _, s := range sets {
		if len(s.pods) > 0 {
			distinct[s.key()] = true
		}
	}
	if len(distinct) > 1 {
		return nil, c.ambiguous(name, sets)
	}
	i := slices.IndexFunc(sets, func(s podSet) bool { return len(s.pods) > 0 })
	return c.fromSet(ctx, sets[max(i, 0)], container)
}

// lookUp returns the pods of everything that is called name, in the order of
// kinds, and the errors of the kinds that could not be read.
func (c *Client) lookUp(ctx context.Context, name string) ([]podSet, []error) {
	all := slices.DeleteFunc(kinds(), func(k kind) bool { return k.rare })
	found := make([]podSet, len(all))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, k := range all {
		wg.Go(func() { found[i], errs[i] = c.podsOf(ctx, k, name) })
	}
	wg.Wait()
	var sets []podSet
	var failed []error
	for i := range all {
		if errs[i] == nil {
			sets = append(sets, found[i])
		} else {
			failed = append(failed, errs[i])
		}
	}
	return sets, failed
}

// fromOwners finds a bare name without looking at workloads, by what the pods
// say of their owners, for users who may only read pods.
func (c *Client) fromOwners(ctx context.Context, name, container string, refused []error) (*Target, error) {
	pods, err := c.listPods(ctx, c.namespace, "")
	if err != nil {
		return nil, c.explain("find", name+" in namespace "+c.namespace, err)
	}
	sets := map[string]podSet{}
	for i := range pods {
		for _, ref := range ownersOf(&pods[i]) {
			if _, base, _ := strings.Cut(ref, "/"); base == name {
				sets[ref] = podSet{ref, append(sets[ref].pods, &pods[i])}
			}
		}
	}
	found := slices.SortedFunc(maps.Values(sets), func(a, b podSet) int { return strings.Compare(a.ref, b.ref) })
	switch len(found) {
	case 0:
		return nil, c.notAllowed(ctx, name, refused)
	case 1:
		return c.fromSet(ctx, found[0], container)
	}
	return nil, c.ambiguous(name, found)
}

// owned returns the pods that say they belong to the workload ref, for users
// who may not read the workload itself.
func (c *Client) owned(ctx context.Context, ref string) (podSet, error) {
	set := podSet{ref: ref}
	pods, err := c.listPods(ctx, c.namespace, "")
	for i := range pods {
		if slices.Contains(ownersOf(&pods[i]), ref) {
			set.pods = append(set.pods, &pods[i])
		}
	}
	if err == nil && len(set.pods) == 0 {
		err = &Error{ID: "BN1102", Op: "find", Object: ref + " in namespace " + c.namespace, Reason: "no pod belongs to it, and you may not see whether it exists",
			Hint: c.kubectl(c.namespace, "get pods")}
	}
	return set, err
}

// notAllowed explains a bare name that neither a pod nor the owner of one has.
// It may be the name of a service that the user may not look at.
func (c *Client) notAllowed(ctx context.Context, name string, refused []error) error {
	for _, err := range refused {
		var failed *requestError
		if !errors.As(err, &failed) || failed.request.resource != "services" {
			continue
		}
		err = c.explain("find", name+" in namespace "+c.namespace, err)
		var e *Error
		if errors.As(err, &e) {
			e.Reason = "no pod has or belongs to that name, and " + e.Reason
			e.Hint = "name a pod: " + c.kubectl(c.namespace, "get pods") + "; " + e.Hint
		}
		return err
	}
	return c.notFound(ctx, name, name, nil)
}

func (c *Client) ambiguous(name string, sets []podSet) error {
	var candidates []string
	for _, s := range sets {
		candidates = append(candidates, fmt.Sprintf("%s (%s)", s.ref, count(len(s.pods), "pod")))
	}
	return &Error{ID: "BN1103", Op: "find", Object: name + " in namespace " + c.namespace,
		Reason: "the name is ambiguous, it means different pods: " + strings.Join(candidates, ", "),
		Hint:   "name the type too: --pod " + sets[0].ref}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// notFound explains why what was named could not be read: the namespace may
// be the one that does not exist. A nil err means that nothing has the name.
func (c *Client) notFound(ctx context.Context, object, name string, err error) error {
	if err != nil && !apierrors.IsNotFound(err) {
		return c.explain("find", object+" in namespace "+c.namespace, err)
	}
	var ns api.Namespace
	nsErr := c.do(ctx, request{verb: "get", resource: "namespaces", name: c.namespace}, &ns)
	if apierrors.IsNotFound(nsErr) {
		return &Error{ID: "BN1101", Op: "find", Object: object, Reason: "there is no namespace " + c.namespace,
			Hint: "name the right one with -n: " + c.kubectl("", "get namespaces"), Err: nsErr}
	}
	e := &Error{ID: "BN1102", Op: "find", Object: object + " in namespace " + c.namespace, Reason: "there is no such pod, workload or service",
		Hint: c.kubectl(c.namespace, "get pods,deployments,statefulsets,services"), Err: err}
	if like := c.similar(ctx, name); len(like) > 0 {
		e.Hint = "did you mean: " + strings.Join(like, ", ") + "?"
	}
	return e
}

// similar returns up to three workloads or pods whose name contains name or
// is contained in it.
func (c *Client) similar(ctx context.Context, name string) []string {
	pods, err := c.listPods(ctx, c.namespace, "")
	if err != nil {
		return nil
	}
	var out []string
	for i := range pods {
		ref := workloadOf(&pods[i])
		if ref == "" {
			ref = pods[i].Name
		}
		_, base, _ := strings.Cut("/"+ref, "/")
		base = base[strings.LastIndexByte(base, '/')+1:]
		if (strings.Contains(pods[i].Name, name) || strings.Contains(name, base)) && !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	}
	slices.Sort(out)
	return out[:min(len(out), 3)]
}

// selecting is a workload or service, as far as it selects pods.
type selecting struct {
	Spec struct {
		Selector json.RawMessage `json:"selector"`
	} `json:"spec"`
}

// podsOf returns the pods that an object of kind k selects.
func (c *Client) podsOf(ctx context.Context, k kind, name string) (podSet, error) {
	set := podSet{ref: k.short + "/" + name}
	var obj selecting
	if err := c.do(ctx, request{verb: "get", group: k.group, resource: k.resource, namespace: c.namespace, name: name}, &obj); err != nil {
		return set, err
	}
	selector, err := selectorOf(k, obj.Spec.Selector)
	if err != nil {
		return set, &Error{Op: "read", Object: set.ref + " in namespace " + c.namespace, Reason: "its selector: " + err.Error(), Err: err}
	}
	if selector == "" {
		return set, nil
	}
	pods, err := c.listPods(ctx, c.namespace, selector)
	for i := range pods {
		set.pods = append(set.pods, &pods[i])
	}
	return set, err
}

// selectorOf returns the label selector of an object in the form of a query;
// empty = it selects nothing.
func selectorOf(k kind, raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	if k.flat {
		var m map[string]string
		if err := json.Unmarshal(raw, &m); err != nil {
			return "", err
		}
		return labels.SelectorFromSet(m).String(), nil
	}
	var ls metav1.LabelSelector
	if err := json.Unmarshal(raw, &ls); err != nil {
		return "", err
	}
	selector, err := metav1.LabelSelectorAsSelector(&ls)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}

// maxPods bounds how many pods of a namespace are looked at.
const maxPods = 5000

// listPods lists the pods of a namespace that selector matches, in pages.
func (c *Client) listPods(ctx context.Context, namespace, selector string) ([]api.Pod, error) {
	var out []api.Pod
	query := url.Values{"limit": {"500"}}
	if selector != "" {
		query.Set("labelSelector", selector)
	}
	for {
		var page api.PodList
		if err := c.do(ctx, request{verb: "list", resource: "pods", namespace: namespace, query: query}, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
		if page.Continue == "" {
			return out, nil
		}
		if len(out) >= maxPods {
			return nil, errors.New("more than 5000 pods match: name one of them")
		}
		query.Set("continue", page.Continue)
	}
}
