package dnsproxy

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

// BenchmarkAnswer measures the proxy and the nameserver in memory behind it, without a network.
func BenchmarkAnswer(b *testing.B) {
	for _, bb := range []struct{ name, qname string }{
		{"one-upstream-query", "orders."},
		{"four-upstream-queries", "www.example.org."},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p := New(Config{Pod: podConf(), Dial: dnsproxytest.New(b, world()...).Dial})
			defer p.Close()
			wire, err := question(bb.qname, dns.TypeA).Pack()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if p.Answer(b.Context(), wire, true) == nil {
					b.Fatal("no answer")
				}
			}
		})
	}
}
