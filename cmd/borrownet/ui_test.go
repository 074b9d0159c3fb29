package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
)

// TestErrorIsOneLine: names come from people and texts from clusters.
func TestErrorIsOneLine(t *testing.T) {
	var out strings.Builder
	newUI(nil, &out).fail(&fault.Error{Op: "find session", Object: "a\nb", Reason: "none\x1b[2J\n", Hint: "first\nsecond"})
	if want := "error: find session a b: none?[2J\nhint: first\n      second\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// TestUpSaysTheState: a session whose link is lost by the time that it has begun is not called ready, and is once it is.
func TestUpSaysTheState(t *testing.T) {
	var out strings.Builder
	u := newUI(nil, &out)
	u.identity(session.Status{Session: "api", State: session.Reconnecting, Hook: hook.Seccomp, Target: session.Target{Context: "lab", Namespace: "shop", Pod: "api-1"},
		Problem: &fault.Error{Op: "reach", Object: "pod shop/api-1", Reason: "the connection was lost", Hint: "kubectl get pods"}})
	for _, want := range []string{"session api is reconnecting: context lab,", "\nwarning: reach pod shop/api-1: the connection was lost\nhint: kubectl get pods\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want %q in it", out.String(), want)
		}
	}
	out.Reset()
	(&teller{ui: u, session: "api", last: session.Reconnecting}).tell(daemon.StateEvent{State: session.Ready})
	if want := "session api is ready again\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestMeshTexts(t *testing.T) {
	const id = "spiffe://cluster.local/ns/shop/sa/api"
	to, at := netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("127.0.0.1:15001")
	for _, tt := range []struct {
		name           string
		mesh           session.Mesh
		identity, path string
	}{
		{"through", session.Mesh{Proxy: "istio-proxy", Path: session.ThroughProxy, Probe: to, Listener: at, Identity: id},
			id, "a probe to 10.96.0.10:53 went through istio-proxy at 127.0.0.1:15001"},
		{"past", session.Mesh{Proxy: "istio-proxy", Path: session.Direct, Probe: to, Identity: id},
			"none: " + id + " is what istio-proxy presents, and the probe went past it", "BYPASSED: a probe to 10.96.0.10:53 went past istio-proxy"},
		{"identity_unknown", session.Mesh{Proxy: "linkerd-proxy", Path: session.ThroughProxy, Probe: to, Listener: at, Note: "why"},
			"unknown: why", "a probe to 10.96.0.10:53 went through linkerd-proxy at 127.0.0.1:15001"},
		{"no_mesh", session.Mesh{Path: session.Direct, Probe: to}, "none but the pod's address", "none: the pod has no sidecar"},
		{"unknown", session.Mesh{Proxy: "istio-proxy", Path: session.UnknownPath, Note: "why"}, "unknown: why", "unknown: why"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if identity, path := identityText(tt.mesh), meshText(tt.mesh); identity != tt.identity || path != tt.path {
				t.Errorf("%q, %q; want %q, %q", identity, path, tt.identity, tt.path)
			}
		})
	}
}
