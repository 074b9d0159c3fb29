package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// TestCloudTexts: up, status and explain say whose identity programs have, and what
// of metadata services is open.
func TestCloudTexts(t *testing.T) {
	agent := []netip.Addr{netip.MustParseAddr("169.254.170.23")}
	for _, tt := range []struct {
		name                string
		st                  session.Status
		up, status, explain string
	}{
		{"none", session.Status{}, "", "no identity found; metadata services, which would take programs for the node, are refused", "refused by the agent"},
		{"local", session.Status{Cloud: kube.Cloud{Identities: []kube.CloudIdentity{{System: "EKS Pod Identity", By: "variable X", Endpoints: agent}}}},
			"cloud identity: EKS Pod Identity (variable X), handed out to the pod at 169.254.170.23\n",
			"EKS Pod Identity (variable X), handed out to the pod at 169.254.170.23", "the pod: there it gets its identity of EKS Pod Identity"},
		{"token", session.Status{Cloud: kube.Cloud{Identities: []kube.CloudIdentity{{System: "EKS IRSA", Account: "role", By: "variable X"}}}},
			"cloud identity: EKS IRSA, role (variable X), had with a token", "the node's metadata service is refused", "refused by the agent"},
		{"unknown", session.Status{Cloud: kube.Cloud{Unknown: "why"}}, "warning: the pod's cloud identity is unknown: why\nhint: borrownet rbac --gke", "unknown: why", "refused by the agent"},
		{"asked", session.Status{Metadata: agent}, "warning: 169.254.170.23 may take programs for the pod's node", "169.254.170.23, as asked", "as asked with --metadata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var up, explain bytes.Buffer
			newUI(nil, &up).cloud(tt.st)
			if !strings.Contains(up.String(), tt.up) || tt.up == "" && up.Len() > 0 {
				t.Errorf("up says %q, want %q", up.String(), tt.up)
			}
			var status []string
			for _, row := range cloudRows(tt.st) {
				status = append(status, row[1])
			}
			if text := strings.Join(status, "\n"); !strings.Contains(text, tt.status) {
				t.Errorf("status says %q, want %q", text, tt.status)
			}
			if err := newUI(&explain, nil).explain([]session.Status{tt.st}); err != nil || !strings.Contains(explain.String(), tt.explain) {
				t.Errorf("explain says %q, %v; want %q", explain.String(), err, tt.explain)
			}
		})
	}
}
