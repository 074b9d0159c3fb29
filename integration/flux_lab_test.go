//go:build lab

package integration

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// needFlux skips a test where no GitOps controller keeps namespace shop.
func needFlux(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB_FLUX") == "" {
		t.Skip("needs a lab with Flux (make test-mesh)")
	}
}

// reconcile has Flux's controller apply what is in Git under the name of a
// Kustomization, and returns what it says it had to do to each object.
func reconcile(t *testing.T, name string) map[string]string {
	t.Helper()
	done := len(applied(t, name))
	token := strconv.FormatInt(time.Now().UnixNano(), 10)
	kubectl(t, "-n", "flux-system", "annotate", "--overwrite", "kustomization", name, "reconcile.fluxcd.io/requestedAt="+token)
	var status, ready string
	waitFor(t, "Flux reconciles "+name, patience, func() bool {
		status = kubectl(t, "-n", "flux-system", "get", "kustomization", name, "-o",
			`jsonpath={.status.lastHandledReconcileAt} {.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message}`)
		var handled string
		handled, ready, _ = strings.Cut(status, " ")
		return handled == token
	})
	if !strings.HasPrefix(ready, "True ") {
		t.Fatalf("Flux cannot reconcile %s: %s", name, ready)
	}
	var all []map[string]string
	waitFor(t, "Flux's log says so", patience, func() bool {
		all = applied(t, name)
		return len(all) > done
	})
	return all[len(all)-1]
}

// applied returns the results of all reconciliations of a Kustomization up to now, by
// the controller's own log.
func applied(t *testing.T, name string) []map[string]string {
	t.Helper()
	var all []map[string]string
	for line := range strings.Lines(kubectl(t, "-n", "flux-system", "logs", "deployment/kustomize-controller", "-c", "manager")) {
		var entry struct {
			Message       string `json:"msg"`
			Kustomization struct {
				Name string `json:"name"`
			} `json:"Kustomization"`
			Output map[string]string `json:"output"`
		}
		// Libraries write lines that are no JSON.
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "server-side apply completed" && entry.Kustomization.Name == name {
			all = append(all, entry.Output)
		}
	}
	return all
}

// wantUnchanged reconciles and checks that the controller found each of the objects as
// they are in Git.
func wantUnchanged(t *testing.T, when, name string, objects int) {
	t.Helper()
	did := reconcile(t, name)
	if len(did) != objects {
		t.Errorf("%s Flux looks at %d objects, want %d: %v", when, len(did), objects, did)
	}
	for object, what := range did {
		if what != "unchanged" {
			t.Errorf("%s Flux says: %s %s", when, object, what)
		}
	}
}

// inventory returns the ids of the objects that a Kustomization manages.
func inventory(t *testing.T, name string) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "-n", "flux-system", "get", "kustomization", name, "-o", "jsonpath={.status.inventory.entries[*].id}"))
}

// versions returns uid, generation and resourceVersion of every object of an inventory.
func versions(t *testing.T, ids []string) string {
	t.Helper()
	kinds := map[string][]string{}
	for _, id := range ids { // NAMESPACE_NAME_GROUP_KIND
		part := strings.Split(id, "_")
		if len(part) != 4 || part[0] != "shop" {
			t.Fatalf("the id %q is not of an object in namespace shop", id)
		}
		kind := strings.TrimSuffix(part[3]+"."+part[2], ".")
		kinds[kind] = append(kinds[kind], part[1])
	}
	var all []string
	for kind, names := range kinds {
		out := kubectl(t, append([]string{"-n", "shop", "get", kind, "-o", "custom-columns=:kind,:metadata.name,:metadata.uid,:metadata.generation,:metadata.resourceVersion", "--no-headers"}, names...)...)
		all = append(all, strings.Split(strings.TrimSpace(out), "\n")...)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// everything returns the names of all objects of the cluster but events and leases,
// which are written all the time and which nobody has in Git.
func everything(t *testing.T) []string {
	t.Helper()
	kinds := slices.DeleteFunc(strings.Fields(kubectl(t, "api-resources", "--verbs=list", "-o", "name")), func(kind string) bool {
		return kind == "events" || kind == "events.events.k8s.io" || kind == "leases.coordination.k8s.io"
	})
	out := kubectl(t, "get", strings.Join(kinds, ","), "-A", "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{"\n"}{end}`)
	names := strings.Fields(out)
	slices.Sort(names)
	return names
}

// TestFluxSeesNoDrift: a controller that keeps the borrowed Deployments, Services and
// ServiceAccounts as they are in Git finds nothing to do before, during and after a
// session.
func TestFluxSeesNoDrift(t *testing.T) {
	needFlux(t)
	managed := inventory(t, "shop")
	for _, id := range []string{"shop_api_apps_Deployment", "shop_orders__Service", "shop_api__ServiceAccount"} {
		if !slices.Contains(managed, id) {
			t.Fatalf("Flux does not manage %s, but %q", id, managed)
		}
	}
	wantUnchanged(t, "before the session", "shop", len(managed))
	objects, before := versions(t, managed), everything(t)

	// As somebody who may do all, so that nothing is left undone for want of rights.
	r := command{
		argv: []string{"borrownet", "up", "-d", "-n", "shop", "--pod", "api"},
		env:  []string{"KUBECONFIG=" + os.Getenv("LAB_ADMIN_KUBECONFIG")},
	}.run(t)
	if r.code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { mustBorrownet(t, "down", "--all") })
	for range 3 {
		probe(t, time.Minute, "get", "http://orders/")
		wantUnchanged(t, "during the session", "shop", len(managed))
	}
	// So there is no object of ours that could have copied labels or annotations.
	added := slices.DeleteFunc(everything(t), func(name string) bool {
		_, found := slices.BinarySearch(before, name)
		return found
	})
	if len(added) > 0 {
		t.Errorf("objects that the session added to the cluster: %q", added)
	}

	mustBorrownet(t, "down", "--all", "--stop-agent")
	wantUnchanged(t, "after the session", "shop", len(managed))
	if diff := cmp.Diff(objects, versions(t, managed)); diff != "" {
		t.Errorf("managed objects (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(managed, inventory(t, "shop")); diff != "" {
		t.Errorf("inventory (-before +after):\n%s", diff)
	}
	fluxReverts(t)
}

// fluxReverts is the control of all of the above: what does change an object is seen
// and undone.
func fluxReverts(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", "shop", "scale", "deployment", "api-v4", "--replicas=2")
	did := reconcile(t, "shop")
	for object, what := range did {
		want := "unchanged"
		if object == "Deployment/shop/api-v4" {
			want = "configured"
		}
		if what != want {
			t.Errorf("after kubectl scale Flux says: %s %s, want %s", object, what, want)
		}
	}
	if n := kubectl(t, "-n", "shop", "get", "deployment", "api-v4", "-o", "jsonpath={.spec.replicas}"); n != "1" {
		t.Errorf("after kubectl scale and Flux there are %s replicas, want 1", n)
	}
	// Other tests count on one pod.
	waitFor(t, "the second pod is gone", patience, func() bool {
		return len(strings.Fields(kubectl(t, "-n", "shop", "get", "pods", "-l", "app=api-v4", "-o", "name"))) == 1
	})
}

// bareInGit has Flux apply the pod that is in Git as such.
const bareInGit = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: bare, namespace: flux-system}
spec:
  interval: 1h
  path: ./bare
  prune: true
  sourceRef: {kind: GitRepository, name: lab}
`

// TestFluxSeesNoDriftInAPod: the same for a pod that is itself in Git, whose list of
// ephemeral containers is then a part of what Flux compares.
func TestFluxSeesNoDriftInAPod(t *testing.T) {
	needFlux(t)
	if r := (command{argv: []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "apply", "-f", "-"}, stdin: bareInGit}).run(t); r.code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { // which deletes the pod too
		kubectl(t, "-n", "flux-system", "delete", "kustomization", "bare")
		waitFor(t, "the pod is gone", patience, func() bool {
			return kubectl(t, "-n", "shop", "get", "pods", "-l", "app=bare", "-o", "name") == ""
		})
	})
	waitFor(t, "Flux has made the pod", patience, func() bool {
		return kubectl(t, "-n", "shop", "get", "pods", "-l", "app=bare", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`) == "True"
	})
	wantUnchanged(t, "before the session", "bare", 1)
	uid := podOf(t, "bare").Metadata.UID

	up(t, "bare")
	for range 3 {
		probe(t, time.Minute, "get", "http://orders/")
		wantUnchanged(t, "during the session", "bare", 1)
	}
	if n := podOf(t, "bare").running(); n != 1 {
		t.Errorf("%d agents run in the pod, want 1", n)
	}
	mustBorrownet(t, "down", "--all", "--stop-agent")
	wantUnchanged(t, "after the session", "bare", 1)
	if got := podOf(t, "bare").Metadata.UID; got != uid {
		t.Errorf("pod has uid %s, want %s", got, uid)
	}

	// The control: a change of the pod is undone.
	kubectl(t, "-n", "shop", "label", "--overwrite", "pod", "bare", "app=drifted")
	if did := reconcile(t, "bare"); did["Pod/shop/bare"] != "configured" {
		t.Errorf("after kubectl label Flux says: %v", did)
	}
	if got := podOf(t, "bare").Metadata.UID; got != uid {
		t.Errorf("pod has uid %s, want %s", got, uid)
	}
}
