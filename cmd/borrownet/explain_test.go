package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
)

func TestExplain(t *testing.T) {
	relayed := session.Status{
		Session: "api", State: session.Ready, Hook: hook.Relay, HookNote: "this container forbids namespaces",
		Target: session.Target{Namespace: "shop", Pod: "api-1", Context: "lab", PodIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}},
		Local:  []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	}
	asked, native := relayed, relayed
	asked.HookNote = "asked for"
	native.Hook, native.HookNote = hook.Seccomp, ""
	native.Target.PodIPs = append(native.Target.PodIPs, netip.MustParseAddr("2001:db8::7"))
	native.Ports = []session.PublishedPort{{Proto: "tcp", Port: 8080, Host: 18080}}
	for _, tt := range []struct {
		name     string
		st       session.Status
		want     []string
		unwanted string
	}{
		{"relay", relayed, []string{"hook relay: ", "why not a better one: this container forbids namespaces\n", "203.0.113.0/24", "--local\n", "the pod has no IPv6 address", "the pod: from 192.0.2.7, "}, "loopback:"},
		{"asked", asked, []string{"hook relay, as asked for"}, "why not"},
		{"seccomp", native, []string{"hook seccomp, the best there is", "on this machine's loopback: 8080/tcp as 18080\n"}, "no IPv6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := newUI(&out, &out).explain([]session.Status{tt.st}); err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, &out)
				}
			}
			if strings.Contains(out.String(), tt.unwanted) {
				t.Errorf("it says %q:\n%s", tt.unwanted, &out)
			}
		})
	}
}
