package dnsproxy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestPlan(t *testing.T) {
	pod := ResolvConf{Search: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"}, Ndots: 5}
	short := ResolvConf{Search: []string{"shop.svc.cluster.local"}, Ndots: 5} // cut by dnsConfig
	tests := []struct {
		name    string
		rc      ResolvConf
		qname   string
		qtype   uint16
		want    [][]string
		settled bool
	}{
		{"bare", pod, "orders.", dns.TypeA, [][]string{{"orders.shop.svc.cluster.local.", "orders.svc.cluster.local.", "orders.cluster.local.", "orders.example.org."}, {"orders."}}, false},
		{"service", pod, "_http._tcp.Orders.", dns.TypeSRV, [][]string{{"_http._tcp.Orders.shop.svc.cluster.local.", "_http._tcp.Orders.svc.cluster.local.", "_http._tcp.Orders.cluster.local.", "_http._tcp.Orders.example.org."}, {"_http._tcp.Orders."}}, false},
		{"enough-dots", pod, "a.b.c.d.e.f.", dns.TypeA, [][]string{{"a.b.c.d.e.f."}, {"a.b.c.d.e.f.shop.svc.cluster.local.", "a.b.c.d.e.f.svc.cluster.local.", "a.b.c.d.e.f.cluster.local.", "a.b.c.d.e.f.example.org."}}, true},
		{"complete", short, "orders.shop.SVC.cluster.local.", dns.TypeA, [][]string{{"orders.shop.SVC.cluster.local."}}, true},
		{"complete-by-cluster-domain", short, "api.other.svc.cluster.local.", dns.TypeA, [][]string{{"api.other.svc.cluster.local."}}, true},
		{"label-that-only-looks-complete", short, "xcluster.local.", dns.TypeA, [][]string{{"xcluster.local.shop.svc.cluster.local."}, {"xcluster.local."}}, false},
		{"ndots-zero", ResolvConf{Search: []string{"example.org"}}, "orders.", dns.TypeA, [][]string{{"orders."}, {"orders.example.org."}}, true},
		{"ndots-one", ResolvConf{Search: []string{"example.org"}, Ndots: 1}, "a.b.", dns.TypeA, [][]string{{"a.b."}, {"a.b.example.org."}}, true},
		{"escaped-dot", ResolvConf{Search: []string{"example.org"}, Ndots: 1}, `a\.b.`, dns.TypeA, [][]string{{`a\.b.example.org.`}, {`a\.b.`}}, false},
		{"no-search", ResolvConf{Ndots: 5}, "orders.", dns.TypeA, [][]string{{"orders."}}, false},
		{"root-in-list", ResolvConf{Search: []string{"a.example", ".", "b.example"}, Ndots: 1}, "x.", dns.TypeA,
			[][]string{{"x.a.example."}, {"x."}, {"x.b.example."}}, false},
		{"root", pod, ".", dns.TypeNS, [][]string{{"."}}, true},
		{"pointer", pod, "1.2.0.192.in-addr.arpa.", dns.TypePTR, [][]string{{"1.2.0.192.in-addr.arpa."}}, true},
		{"pointer-elsewhere", pod, "x.", dns.TypePTR, [][]string{{"x."}}, true},
		{"reverse-zone", pod, "2.0.192.in-addr.arpa.", dns.TypeSOA, [][]string{{"2.0.192.in-addr.arpa."}}, true},
		{"reverse-zone-6", pod, "8.b.d.0.1.0.0.2.IP6.arpa.", dns.TypeNS, [][]string{{"8.b.d.0.1.0.0.2.IP6.arpa."}}, true},
		{"validator", pod, "org.", dns.TypeDS, [][]string{{"org."}}, true},
		{"bad-suffixes", ResolvConf{Search: []string{"", "a..b", strings.Repeat("x", 64), "example.org"}, Ndots: 1}, "x.", dns.TypeA,
			[][]string{{"x.example.org."}, {"x."}}, false},
		{"too-long", ResolvConf{Search: []string{strings.Repeat("abcdefg.", 16) + "org", "example.org"}, Ndots: 15},
			strings.Repeat("abcdefghi.", 13), dns.TypeA, [][]string{{strings.Repeat("abcdefghi.", 13) + "example.org."}, {strings.Repeat("abcdefghi.", 13)}}, false},
		{"ndots-out-of-range", ResolvConf{Search: []string{"example.org"}, Ndots: -7}, "x.", dns.TypeA, [][]string{{"x."}, {"x.example.org."}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules := newSearchRules(tt.rc)
			got, settled := rules.plan(query{name: tt.qname, qtype: tt.qtype})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if settled != tt.settled {
				t.Errorf("settled: got %v, want %v", settled, tt.settled)
			}
		})
	}
}

func TestWithout(t *testing.T) {
	rules := newSearchRules(ResolvConf{Search: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"}, Ndots: 5})
	laptop := []string{"home.example.", "corp.example.", "cluster.local."}
	for _, tt := range []struct {
		qname string
		qtype uint16
		want  []string
	}{
		{"orders.home.example.", dns.TypeA, []string{"orders.shop.svc.cluster.local.", "orders.svc.cluster.local.", "orders.cluster.local."}},
		{"Orders.shop.CORP.example.", dns.TypeA, []string{"Orders.shop.shop.svc.cluster.local.", "Orders.shop.svc.cluster.local.", "Orders.shop.cluster.local."}},
		{"home.example.", dns.TypeA, nil},
		{"ahome.example.", dns.TypeA, nil},
		{"orders.cluster.local.", dns.TypeA, nil},
		{"orders.example.org.", dns.TypeA, nil},
		{"orders.home.example.", dns.TypePTR, nil},
	} {
		if diff := cmp.Diff(tt.want, rules.without(laptop, query{name: tt.qname, qtype: tt.qtype})); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tt.qname, dns.TypeToString[tt.qtype], diff)
		}
	}
}

func TestSearchListBounded(t *testing.T) {
	rules := newSearchRules(ResolvConf{Search: strings.Split(strings.Repeat("example.org ", 100), " "), Ndots: 5})
	got, _ := rules.plan(query{name: "x.", qtype: dns.TypeA})
	if len(got) != 2 || len(got[0]) != maxSearch {
		t.Errorf("got %d names in %d steps, want %d and the name itself", len(got[0]), len(got), maxSearch)
	}
}

// TestWithin checks within against the library, whose names it is about.
func TestWithin(t *testing.T) {
	names := []string{".", "local.", "Cluster.LOCAL.", "cluster.local.", "a.cluster.local.", "acluster.local.", `a\.cluster.local.`, `a\\.cluster.local.`,
		`\.cluster.local.`, "svc.cluster.local.", "x.svc.Cluster.local.", "10.in-addr.arpa.", "in-addr.arpa.", "arpa."}
	for _, domain := range names {
		for _, name := range names {
			if got, want := within(domain, name), dns.IsSubDomain(domain, name); got != want {
				t.Errorf("within(%q, %q) = %v, want %v", domain, name, got, want)
			}
		}
	}
}
