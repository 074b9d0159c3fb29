package session

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
)

// TestJudge: what a person is told of the mesh follows from what the agent found
// out; the pod's spec only says why.
func TestJudge(t *testing.T) {
	const id = "spiffe://cluster.local/ns/shop/sa/api"
	to, via := netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("127.0.0.1:15001")
	istio := kube.Mesh{Proxy: "istio-proxy", Envoy: true, UIDs: []int64{1337}, GIDs: []int64{1337}}
	excluding := istio
	excluding.Excluded = []kube.Exclusion{{Setting: "annotation x: 53", Ports: [][2]uint16{{53, 53}}}}
	through, direct := wire.Path{To: to, Connected: true, Via: via}, wire.Path{To: to, Connected: true}
	known := wire.Identity{ID: id, Expires: time.Now().Add(time.Hour)}
	for _, tt := range []struct {
		name     string
		spec     kube.Mesh
		got      wire.Mesh
		path     Path
		identity string
		problem  string // a part of it; "" = none
		hint     string
	}{
		{"through", istio, wire.Mesh{Path: through, Identity: known, UID: 10001}, ThroughProxy, id, "", ""},
		{"proxys_user", istio, wire.Mesh{Path: direct, Identity: known, UID: 1337}, Direct, id, "agent runs as uid 1337", "--stop-agent"},
		{"proxys_group", istio, wire.Mesh{Path: direct, Identity: known, UID: 10001, GID: 1337}, Direct, id, "in group 1337", "--stop-agent"},
		{"excluded", excluding, wire.Mesh{Path: direct, Identity: known, UID: 10001}, Direct, id, "annotation x: 53", "plaintext"},
		{"no_rules", istio, wire.Mesh{Path: direct, Identity: known, UID: 10001}, Direct, id, "no rule in the pod", "kubectl -n shop describe pod api-1"},
		{"not_ready", istio, wire.Mesh{Path: wire.Path{To: to, Problem: "connect: connection refused"}}, UnknownPath, "", "connection refused", "kubectl -n shop logs api-1 -c istio-proxy"},
		{"no_certificate", istio, wire.Mesh{Path: through, Identity: wire.Identity{Problem: "no certificate yet"}}, ThroughProxy, "", "no certificate yet", "logs api-1 -c istio-proxy"},
		{"expired", istio, wire.Mesh{Path: through, Identity: wire.Identity{ID: id, Expires: time.Now().Add(-time.Hour)}}, ThroughProxy, id, "has expired", "logs"},
		{"no_table", istio, wire.Mesh{Path: wire.Path{To: to, Connected: true, Problem: "table cannot be read"}, Identity: known}, UnknownPath, id, "", ""},
		{"linkerd", kube.Mesh{Proxy: "linkerd-proxy"}, wire.Mesh{Path: through}, ThroughProxy, "", "", ""},
		{"no_mesh", kube.Mesh{}, wire.Mesh{Path: direct}, Direct, "", "", ""},
		{"no_mesh_no_answer", kube.Mesh{}, wire.Mesh{Path: wire.Path{To: to, Problem: "no answer"}}, UnknownPath, "", "", ""},
		{"no_sidecar", kube.Mesh{Asked: "istio.io/rev=canary"}, wire.Mesh{Path: direct}, Direct, "", "istio.io/rev=canary", "get events"},
		{"redirected_by_another", kube.Mesh{}, wire.Mesh{Path: through}, ThroughProxy, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := judge(&kube.Target{Namespace: "shop", Pod: "api-1", Mesh: tt.spec}, tt.got)
			if m.Path != tt.path || m.Identity != tt.identity || m.Proxy != tt.spec.Proxy {
				t.Errorf("judged %+v, want path %s and identity %q", m, tt.path, tt.identity)
			}
			switch {
			case m.Problem == nil && tt.problem != "":
				t.Errorf("no problem, want %q", tt.problem)
			case m.Problem != nil && (tt.problem == "" || !strings.Contains(m.Problem.Error(), tt.problem) || !strings.Contains(m.Problem.Hint, tt.hint)):
				t.Errorf("problem %v, hint %q; want %q, %q", m.Problem, m.Problem.Hint, tt.problem, tt.hint)
			}
		})
	}
}

// silentAgent never answers.
type silentAgent struct{}

func (silentAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestLateMeshIsTheLast: an agent that does not answer in time takes nothing back of what it told before.
func TestLateMeshIsTheLast(t *testing.T) {
	s := &Session{log: slog.New(slog.DiscardHandler), control: &control{http: &http.Client{Transport: silentAgent{}}}}
	s.target = &kube.Target{}
	known := &Mesh{Proxy: "istio-proxy", Path: ThroughProxy}
	s.mesh.Store(known)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.lookAtMesh(ctx)
	if got := s.mesh.Load(); got != known {
		t.Errorf("known is %+v, want %+v", got, known)
	}
}
