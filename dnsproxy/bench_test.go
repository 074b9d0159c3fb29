package dnsproxy

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

// BenchmarkAnswer measures the proxy and, where the cache does not know, the nameserver in memory behind it, without a
// network.
func BenchmarkAnswer(b *testing.B) {
	for _, bb := range []struct {
		name  string
		qname func(i int) string
	}{
		{"cached", func(int) string { return "orders.shop.svc.cluster.local." }},
		{"cached-search", func(int) string { return "orders." }},
		{"cached-search-to-the-end", func(int) string { return "www.example.org." }},
		{"uncached", func(i int) string { return fmt.Sprintf("n%d.example.org.svc.cluster.local.", i) }},
		{"uncached-search", func(i int) string { return fmt.Sprintf("n%d.example.org.", i) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p := newProxy(Config{Pod: podConf(), Dial: dnsproxytest.New(b, append(world(), "*.example.org.svc.cluster.local. 5 IN A 192.0.2.1")...).Dial})
			defer p.Close()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				wire, err := question(bb.qname(i), dns.TypeA).Pack()
				if err != nil {
					b.Fatal(err)
				}
				if p.Answer(b.Context(), wire, true) == nil {
					b.Fatal("no answer")
				}
			}
		})
	}
}
