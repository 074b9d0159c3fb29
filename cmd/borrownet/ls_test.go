package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

func someOffers() *kube.Offers {
	return &kube.Offers{
		Context:    "lab",
		Namespaces: []kube.Surrounding{{Name: "shop", PodSecurity: "restricted", RightsKnown: true, Missing: []string{"create pods/portforward"}}},
		Targets: []kube.Offer{
			{Namespace: "shop", Ref: "deploy/api", Pods: 2, Ready: 2, Mesh: "istio", Container: "app", PodNames: []string{"api-1", "api-2"}, Nodes: []string{"n1"},
				Borrowers: []kube.Borrower{
					{Pod: "api-1", Container: "borrownet-agent-1", ClientKey: "AAAABBBBCCCC", State: kube.Borrowed, Client: "me@here"},
					{Pod: "api-1", Container: "borrownet-agent-2", ClientKey: "AAAABBBBCCCC", State: kube.Borrowed, Client: "jane@laptop", Since: time.Unix(1, 0)},
					{Pod: "api-2", Container: "borrownet-agent-3", ClientKey: "AAAABBBBCCCC", State: kube.Occupancy},
					{Pod: "api-2", Container: "borrownet-agent-4", ClientKey: "DDDD", State: kube.Parked},
				}},
			{Namespace: "shop", Ref: "pod/web", Pods: 1, Problem: "the pod is not running: it is Pending\n"},
		},
	}
}

func TestOfferTable(t *testing.T) {
	list := someOffers()
	st := session.Status{Session: "api", Target: session.Target{Namespace: "shop", Pod: "api-1"}}
	st.Agent.Container = "borrownet-agent-1"
	claim(list, []session.Status{st})
	var out, said strings.Builder
	if err := newUI(&out, &said).offers(list, false, false); err != nil {
		t.Fatal(err)
	}
	want := `TARGET READY MESH UP BORROWED BY
deploy/api 2/2 istio yes you (session api), jane@laptop, key AAAABBBB (or parked: its log may not be read), key DDDD (parked)
pod/web 0/1 - no: the pod is not running: it is Pending -
`
	if diff := cmp.Diff(want, squeeze(out.String())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if want := "context lab, namespace shop, Pod Security restricted, rights are missing\n" +
		"warning: you may not create pods/portforward in namespace shop, which up needs\nhint: borrownet doctor -n shop names who can grant it, and how\n"; said.String() != want {
		t.Errorf("said %q", said.String())
	}
	out.Reset()
	if err := newUI(&out, &said).offers(list, true, true); err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(squeeze(out.String()), "\n"); first != "NAMESPACE TARGET READY MESH UP BORROWED BY CONTAINER PODS NODES" {
		t.Errorf("wide: %s", first)
	}
}

// squeeze makes one space of several: how wide columns are is tabwriter's.
func squeeze(text string) string {
	var b strings.Builder
	for l := range strings.Lines(text) {
		b.WriteString(strings.Join(strings.Fields(l), " ") + "\n")
	}
	return b.String()
}
