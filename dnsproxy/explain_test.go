package dnsproxy

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

func TestExplain(t *testing.T) {
	attempt := func(rcode string) []Attempt {
		return []Attempt{{Server: netip.MustParseAddrPort("192.0.2.53:53"), Network: "udp", Rcode: rcode}}
	}
	const ns = ".shop.svc.cluster.local."
	tests := []struct {
		name, qname, qtype string
		want               Explanation // without search list, ndots, name and type
	}{
		{name: "first", qname: "orders", qtype: "A", want: Explanation{
			Steps: []Step{{Name: "orders" + ns, Type: "A", From: FromPod, Attempts: attempt("NOERROR"), Rcode: "NOERROR", Records: 1, TTL: 5}},
			Rcode: "NOERROR", Answer: []string{"orders.\t5\tIN\tCNAME\torders" + ns, "orders" + ns + "\t5\tIN\tA\t192.0.2.1"},
		}},
		{name: "again", qname: "orders", qtype: "a", want: Explanation{
			Steps: []Step{{Name: "orders" + ns, Type: "A", From: FromCache, Rcode: "NOERROR", Records: 1, TTL: 3}},
			Rcode: "NOERROR", Answer: []string{"orders.\t3\tIN\tCNAME\torders" + ns, "orders" + ns + "\t3\tIN\tA\t192.0.2.1"},
		}},
		{name: "nobody", qname: "nobody.", qtype: "A", want: Explanation{
			Steps: []Step{
				{Name: "nobody" + ns, Type: "A", From: FromPod, Attempts: attempt("NXDOMAIN"), Rcode: "NXDOMAIN", TTL: 5},
				{Name: "nobody.svc.cluster.local.", Type: "A", From: FromPod, Attempts: attempt("NXDOMAIN"), Rcode: "NXDOMAIN", TTL: 5},
				{Name: "nobody.cluster.local.", Type: "A", From: FromPod, Attempts: attempt("NXDOMAIN"), Rcode: "NXDOMAIN", TTL: 5},
				{Name: "nobody.", Type: "A", From: FromPod, Attempts: attempt("NXDOMAIN"), Rcode: "NXDOMAIN"},
			},
			Rcode: "NXDOMAIN",
		}},
		{name: "override", qname: "pinned.example.com", qtype: "AAAA", want: Explanation{
			Steps: []Step{{Name: "pinned.example.com.", Type: "AAAA", From: FromOverride, Rcode: "NOERROR", Records: 1}},
			Rcode: "NOERROR", Answer: []string{"pinned.example.com.\t5\tIN\tAAAA\t2001:db8::77"},
		}},
		{name: "local", qname: "x.home.example", qtype: "A", want: Explanation{
			Local: "home.example.",
			Steps: []Step{{Name: "x.home.example.", Type: "A", From: FromLaptop, Err: "ask for x.home.example. A: there are no nameservers"}},
			Rcode: "SERVFAIL", Err: "ask for x.home.example. A: there are no nameservers",
		}},
		{name: "everything", qname: "orders", qtype: "ANY", want: Explanation{Rcode: "NOERROR", Answer: []string{"orders.\t3600\tIN\tHINFO\t\"RFC8482\" \"\""}}},
		{name: "zone-transfer", qname: "orders", qtype: "AXFR", want: Explanation{Rcode: "REFUSED"}},
	}
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(Config{
			Pod: podConf(), Dial: dnsproxytest.New(t, world()...).Dial, Local: []string{"home.example."},
			Hosts: map[string][]netip.Addr{"pinned.example.com": {netip.MustParseAddr("2001:db8::77")}},
		})
		defer p.Close()
		for i, tt := range tests {
			got, err := p.Explain(t.Context(), tt.qname, tt.qtype)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if got.Ndots != 5 || len(got.Search) != 3 {
				t.Errorf("%s: got search %q, ndots %d", tt.name, got.Search, got.Ndots)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Explanation{}, "Name", "Type", "Search", "Ndots"),
				cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
			if i == 0 {
				time.Sleep(1500 * time.Millisecond)
			}
		}
		if got := p.Stats(); got.Queries != uint64(len(tests)) || got.Cached != 1 || got.Overridden != 1 || got.Failed != 1 {
			t.Errorf("stats %+v", got)
		}
		for _, bad := range [][2]string{{"orders", "FOO"}, {"a..b", "A"}, {"", "A"}} {
			if got, err := p.Explain(t.Context(), bad[0], bad[1]); err == nil {
				t.Errorf("%q: got %+v", bad, got)
			}
		}
	})
}
