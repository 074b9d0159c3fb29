package dnsproxy

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
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

// BenchmarkServe measures the proxy's own work for a query: its nameserver answers within Write.
func BenchmarkServe(b *testing.B) {
	for _, bb := range []struct {
		name  string
		qname func(i int) string
	}{
		{"cached", func(int) string { return "orders.shop.svc.cluster.local." }},
		{"uncached", func(i int) string {
			return fmt.Sprintf("10-%d-%d-%d.shop.pod.cluster.local.", i>>16&255, i>>8&255, i&255)
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p := New(Config{Pod: podConf(), Datagrams: func(_ netip.AddrPort, receive func([]byte, error)) (io.WriteCloser, error) {
				return instant(receive), nil
			}})
			defer p.Close()
			answered := 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				query := []byte{byte(i >> 8), byte(i), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
				for label := range strings.SplitAfterSeq(bb.qname(i), ".") {
					label = strings.TrimSuffix(label, ".")
					query = append(append(query, byte(len(label))), label...)
				}
				p.Serve(append(query, 0, 1, 0, 1), func([]byte) { answered++ })
			}
			if answered != b.N {
				b.Fatalf("%d answers to %d queries", answered, b.N)
			}
		})
	}
}

// instant is a nameserver that answers every question for an address with one, at once.
type instant func([]byte, error)

func (receive instant) Write(query []byte) (int, error) {
	end := headerLen + bytes.IndexByte(query[headerLen:], 0) + 5
	reply := append([]byte(nil), query[:end]...)
	reply[2], reply[3], reply[7], reply[11] = 0x84, 0, 1, 0                                   // an answer by who is in charge, of one record
	receive(append(reply, 0xc0, headerLen, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1), nil) // of the name asked for
	return len(query), nil
}

func (instant) Close() error { return nil }
