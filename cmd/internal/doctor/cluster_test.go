package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// cluster is what the tests make of one.
type cluster struct {
	session.Cluster // its other methods are not called

	version    string
	unreached  error
	access     []kube.Access
	noReviews  error
	unresolved error
	refusal    error
	mesh       kube.Mesh
}

func (c *cluster) Context() string                         { return "lab" }
func (c *cluster) Namespace() string                       { return "shop" }
func (c *cluster) Server() string                          { return "https://192.0.2.1:6443" }
func (c *cluster) Close() error                            { return nil }
func (c *cluster) Version(context.Context) (string, error) { return c.version, c.unreached }
func (c *cluster) User(context.Context) string             { return "jane" }

func (c *cluster) Grant(user, namespace string, f kube.Feature) string {
	return "grant " + user + " " + namespace + " " + string(f)
}

func (c *cluster) CheckAccess(context.Context, string) ([]kube.Access, error) {
	return c.access, c.noReviews
}

func (c *cluster) Resolve(context.Context, string, string) (*kube.Target, error) {
	return &kube.Target{Namespace: "shop", Pod: "api-1", Container: "app", Node: "n1", Mesh: c.mesh}, c.unresolved
}

func (c *cluster) Plan(context.Context, *kube.Target, kube.AgentSpec) ([]byte, error) {
	return []byte("# accepted in a dry run\n# more\n"), c.refusal
}

func TestCluster(t *testing.T) {
	known := func(op string) error {
		return &kube.Error{Op: op, Object: "it", Reason: "because", Hint: "do that"}
	}
	patch := kube.Access{Verb: "patch", Resource: "pods/ephemeralcontainers"}
	attach := kube.Access{Verb: "create", Resource: "pods/attach", Feature: kube.TargetAsImage}
	forward := kube.Access{Verb: "create", Resource: "pods/portforward"}
	mayAttach := kube.Access{Verb: "create", Resource: "pods/attach", Feature: kube.TargetAsImage, Allowed: true}
	list := kube.Access{Verb: "list", Resource: "pods", Feature: kube.Workloads}
	for _, tt := range []struct {
		name    string
		cluster cluster
		borrow  Borrow
		check   string
		state   State
		found   string
		hint    string
		verdict fault.Code
	}{
		{"version", cluster{version: "v1.34.4"}, Borrow{}, "api server", OK, "https://192.0.2.1:6443, Kubernetes v1.34.4 answers in ", "", 0},
		{"no-version", cluster{}, Borrow{}, "api server", OK, "does not say", "", 0},
		{"unreached", cluster{unreached: known("reach")}, Borrow{}, "api server", Fail, "because", "do that", fault.Cluster},
		{"user", cluster{}, Borrow{}, "user", OK, "jane", "", 0},
		{"rights", cluster{access: []kube.Access{{Allowed: true}}}, Borrow{}, "rights", OK, "all that is needed in namespace shop", "", 0},
		{"right-missing", cluster{access: []kube.Access{patch, list}}, Borrow{}, "rights", Fail, "you may not patch pods/ephemeralcontainers in namespace shop",
			"an administrator can grant it: grant jane shop ", fault.Agent},
		{"target-image", cluster{access: []kube.Access{attach}}, Borrow{Request: session.Request{Image: kube.TargetImage}}, "rights", Fail, "you may not create pods/attach", "grant jane shop target-image", fault.Agent},
		{"no-target-image", cluster{access: []kube.Access{attach}}, Borrow{}, "rights", OK, "all that is needed", "", 0},
		{"over-attach", cluster{access: []kube.Access{forward, mayAttach}}, Borrow{}, "rights", OK, "the link goes over attach", "", 0},
		{"neither", cluster{access: []kube.Access{forward, attach}}, Borrow{}, "rights", Fail, "you may not create pods/portforward", "", fault.Agent},
		{"no-reviews", cluster{noReviews: known("check")}, Borrow{}, "rights", Warn, "because", "--dry-run", 0},
		{"image", cluster{}, Borrow{Request: session.Request{Image: "a:1"}}, "agent image", OK, "a:1", "", 0},
		{"no-image", cluster{}, Borrow{NoImage: &fault.Error{Code: fault.Usage, Reason: "none is named", Hint: "build one"}}, "agent image", Fail, "none is named", "build one", fault.Usage},
		{"target", cluster{}, Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "target", OK, "pod shop/api-1, container app, node n1", "", 0},
		{"no-mesh", cluster{}, Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "mesh", OK, "no sidecar", "", 0},
		{"mesh", cluster{mesh: kube.Mesh{Proxy: "istio-proxy"}}, Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "mesh", OK, "sidecar istio-proxy", "", 0},
		{"mesh-with-holes", cluster{mesh: kube.Mesh{Proxy: "istio-proxy", Excluded: []kube.Exclusion{{Setting: "excludeOutboundPorts=5432"}}}},
			Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "mesh", OK, "past: excludeOutboundPorts=5432", "", 0},
		{"mesh-missed", cluster{mesh: kube.Mesh{Asked: "istio.io/rev=1"}}, Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "mesh", Warn,
			"asks for a sidecar (istio.io/rev=1) and has none", "kubectl -n shop get events", 0},
		{"no-target", cluster{unresolved: known("find")}, Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "target", Fail, "because", "do that", fault.Target},
		{"dry-run", cluster{}, Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "dry run", OK, "accepted in a dry run", "", 0},
		{"refused", cluster{refusal: known("attach to")}, Borrow{Request: session.Request{Ref: "api", Image: "a:1"}}, "dry run", Fail, "because", "do that", fault.Agent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.borrow.Connect = func(kube.Flags) (session.Cluster, error) { return &tt.cluster, nil }
			checks := tt.borrow.Check(t.Context())
			found := false
			for _, c := range checks {
				if c.Name == tt.check && !found {
					found = true
					if c.State != tt.state || !strings.Contains(c.Found, tt.found) || !strings.Contains(c.Hint, tt.hint) {
						t.Errorf("got %+v", c)
					}
				}
			}
			if !found {
				t.Errorf("no check %s in %+v", tt.check, checks)
			}
			if got := Verdict(checks); got != tt.verdict {
				t.Errorf("verdict %d, want %d", got, tt.verdict)
			}
		})
	}
}

// TestPaths: a session that does not work is a failure, with the code and the name of what it says.
func TestPaths(t *testing.T) {
	at := session.Target{Namespace: "shop", Pod: "api-1"}
	lost := &fault.Error{Code: fault.SessionLost, ID: "BN3201", Op: "keep session", Object: "lost", Reason: "the pod is gone", Hint: "borrownet up"}
	got := Paths([]session.Status{
		{Session: "well", State: session.Ready, Target: at, RoundTrip: 3 * time.Millisecond},
		{Session: "slow", State: session.Ready, Target: at},
		{Session: "lost", State: session.Lost, Target: at, Problem: lost},
	})
	want := []Check{
		{Name: "path", State: OK, Found: "session well: pod shop/api-1 answers in 3ms"},
		{Name: "path", State: Warn, Found: "session slow: pod shop/api-1 has not answered, the session is ready", Hint: "borrownet status slow"},
		{Name: "path", State: Fail, Found: lost.Error(), Hint: "borrownet up", Code: fault.SessionLost, ID: "BN3201"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("checks (-want +got):\n%s", d)
	}
}

// TestOptionalRights: what nobody has to have is named, and is no failure.
func TestOptionalRights(t *testing.T) {
	c := &cluster{access: []kube.Access{{Allowed: true}, {Verb: "list", Resource: "pods", Feature: kube.Workloads}, {Verb: "get", Resource: "services", Feature: kube.Workloads}}}
	checks := rights(t.Context(), c, "shop", "jane", []kube.Feature{""})
	if len(checks) != 2 || checks[1].State != OK || !strings.Contains(checks[1].Found, "list pods, get services, which only --workloads") {
		t.Errorf("got %+v", checks)
	}
}

func TestNoKubeconfig(t *testing.T) {
	b := Borrow{Connect: func(kube.Flags) (session.Cluster, error) {
		return nil, &kube.Error{Op: "read", Object: "kubeconfig", Reason: "there is none", Hint: "name one"}
	}}
	checks := b.Check(t.Context())
	if len(checks) != 1 || checks[0].State != Fail || checks[0].Code != fault.Cluster || checks[0].Hint != "name one" {
		t.Errorf("got %+v", checks)
	}
	b.Connect = func(kube.Flags) (session.Cluster, error) { return nil, errors.New("no") }
	if got := Verdict(b.Check(t.Context())); got != fault.General {
		t.Errorf("verdict %d", got)
	}
}
