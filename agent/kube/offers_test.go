package kube

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

const (
	began  = "2026-01-02T03:04:05Z"
	parked = "2026-01-02T04:04:05Z"
)

// shop is a namespace with agents in all states.
func shop(t *testing.T) *fakeAPI {
	f := newFakeAPI(t)
	deployPods(f)
	f.addPod("over", func(p *api.Pod) { p.Status.Phase = api.PodSucceeded })
	f.addPod("meshed", func(p *api.Pod) {
		p.Spec.Containers = append([]api.Container{{Name: istioProxy}}, p.Spec.Containers...)
		p.Annotations = map[string]string{defaultContainer: "app"}
	})
	f.addPod("other", func(p *api.Pod) { p.Namespace = "desk"; p.Status.Phase = api.PodPending })
	f.objects["/api/v1/namespaces/shop"] = &api.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{enforceLabel: "restricted"}}}
	f.objects["/api/v1/namespaces"] = &api.NamespaceList{Items: []api.Namespace{
		{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{enforceLabel: "restricted"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "desk"}},
	}}
	pod := f.pods["shop/db-0"]
	for name, state := range map[string]api.ContainerState{
		"a": running(), "b": running(), "c": running(), "d": waiting("ContainerCreating", ""), "e": terminated(0, "Completed", ""),
	} {
		addAgent(f, pod, name, state)
	}
	line := func(at, text string) string { return `{"time":"` + at + `","level":"INFO",` + text + "}\n" }
	f.logs[agentPrefix+"a"] = hello() + line(began, `"msg":"session starts"`) + line(began, `"msg":"client","who":"old@x"`) + line(parked, `"msg":"session ends"`) +
		line(parked, `"msg":"session starts"`) + line(parked, `"msg":"client","who":"jane@\u001blaptop"`) + "no JSON\n"
	f.logs[agentPrefix+"b"] = hello() + line(began, `"msg":"session starts"`) + line(began, `"msg":"client","who":"joe@pc"`) + line(parked, `"msg":"session ends"`)
	f.logs[agentPrefix+"c"] = hello()
	return f
}

// addAgent puts an agent into pod, whose key is its name.
func addAgent(f *fakeAPI, pod *api.Pod, name string, state api.ContainerState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, api.EphemeralContainer{
		Name: agentPrefix + name, Args: []string{"--client-key", name}, Env: []api.EnvVar{{Name: envSpec, Value: "x"}},
	})
	f.setState(pod, agentPrefix+name, state)
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// find returns the offer of ref.
func find(t *testing.T, o *Offers, ref string) Offer {
	t.Helper()
	for _, x := range o.Targets {
		if x.Ref == ref {
			return x
		}
	}
	t.Fatalf("no %s among %+v", ref, o.Targets)
	return Offer{}
}

func TestOffers(t *testing.T) {
	f := shop(t)
	got, err := f.client().Offers(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Targets) != 3 || got.Context != "lab" {
		t.Errorf("context %s, %d targets: %+v", got.Context, len(got.Targets), got.Targets)
	}
	if want := []Surrounding{{Name: "shop", PodSecurity: "restricted", RightsKnown: true}}; !cmp.Equal(got.Namespaces, want) {
		t.Errorf("namespaces %+v", got.Namespaces)
	}
	if api := find(t, got, "deploy/api"); api.Pods != 4 || api.Ready != 2 || api.Problem != "" || api.PodNames[0] != "api-7d4b-b" || api.Nodes[0] != "node-1" {
		t.Errorf("deploy/api: %+v", api)
	}
	if m := find(t, got, "pod/meshed"); m.Mesh != "istio" || m.Container != "app" || len(m.Containers) != 2 {
		t.Errorf("pod/meshed: %+v", m)
	}
	want := map[string]Borrower{
		"a": {State: Borrowed, Client: "jane@laptop", Since: at(t, parked)},
		"b": {State: Parked, Client: "joe@pc", Since: at(t, parked)},
		"c": {State: Parked, Since: time.Unix(1700000000, 0)},
		"d": {State: Starting},
	}
	borrowers := find(t, got, "pod/db-0").Borrowers
	if len(borrowers) != len(want) {
		t.Errorf("borrowers %+v", borrowers)
	}
	for _, b := range borrowers {
		if w := want[b.ClientKey]; b.State != w.State || b.Client != w.Client || !b.Since.Equal(w.Since) || b.Container != agentPrefix+b.ClientKey {
			t.Errorf("agent %s: %+v, want %+v", b.ClientKey, b, w)
		}
	}
}

// TestOffersOfAllNamespaces also meets a pod that does not run.
func TestOffersOfAllNamespaces(t *testing.T) {
	got, err := shop(t).client().Offers(t.Context(), AllNamespaces)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Surrounding{{Name: "desk", PodSecurity: "default"}, {Name: "shop", PodSecurity: "restricted"}}; !cmp.Equal(got.Namespaces, want) {
		t.Errorf("namespaces %+v", got.Namespaces)
	}
	if o := find(t, got, "pod/other"); o.Problem != "the pod is not running: it is Pending" || o.Hint == "" || o.Namespace != "desk" {
		t.Errorf("pod/other: %+v", o)
	}
}

// TestOffersOverAttach: who may attach lacks nothing without port-forward.
func TestOffersOverAttach(t *testing.T) {
	f := shop(t)
	f.deny = map[string]bool{"create pods/portforward": true, "get pods/portforward": true}
	got, err := f.client().Offers(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Namespaces[0]; !s.RightsKnown || len(s.Missing) > 0 {
		t.Errorf("%+v", s)
	}
}

// TestOffersWithoutRights: only the right to list pods is needed.
func TestOffersWithoutRights(t *testing.T) {
	f := shop(t)
	f.deny = map[string]bool{"get namespaces": true, "list namespaces": true, "get pods/log": true, "patch pods/ephemeralcontainers": true}
	got, err := f.client().Offers(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if want := []Surrounding{{Name: "shop", PodSecurity: "unknown", RightsKnown: true, Missing: []string{"patch pods/ephemeralcontainers", "get pods/log"}}}; !cmp.Equal(got.Namespaces, want) {
		t.Errorf("namespaces %+v", got.Namespaces)
	}
	for _, b := range find(t, got, "pod/db-0").Borrowers {
		if b.State != Occupancy && b.ClientKey != "d" {
			t.Errorf("agent whose log may not be read: %+v", b)
		}
	}
	f.ssarOff = true
	if got, err = f.client().Offers(t.Context(), ""); err != nil || got.Namespaces[0].RightsKnown {
		t.Errorf("without reviews: %+v, %v", got, err)
	}
	f.deny["list pods"] = true
	_, err = f.client().Offers(t.Context(), "")
	if e, ok := errors.AsType[*Error](err); !ok || e.Object != "namespace shop" || e.Hint == "" {
		t.Errorf("without the right to list pods: %v", err)
	}
}
