package dnsproxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

// world is a cluster with a Service named as an internet host is, and some of that internet.
func world() []string {
	return []string{
		"cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
		"orders.shop.svc.cluster.local. 5 IN A 192.0.2.1",
		"Orders.other.svc.cluster.local. 20 IN A 192.0.2.2",
		"dual.shop.svc.cluster.local. 60 IN A 192.0.2.3",
		"dual.shop.svc.cluster.local. 7 IN AAAA 2001:db8::3",
		"_http._tcp.orders.shop.svc.cluster.local. 5 IN SRV 0 100 8080 orders.shop.svc.cluster.local.",
		"text.shop.svc.cluster.local. 5 IN A 192.0.2.4",
		"text.cluster.local. 5 IN TXT \"found later\"",
		"alias.shop.svc.cluster.local. 9 IN CNAME www.example.org.",
		"example.org. 300 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 60",
		"www.example.org. 100 IN A 198.51.100.1",
		"orders.other. 100 IN AAAA 2001:db8:bad::1",
		"mail.example.org. 100 IN MX 10 mx.example.org.",
		"2.0.192.in-addr.arpa. 30 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 60",
		"1.2.0.192.in-addr.arpa. 30 IN PTR orders.shop.svc.cluster.local.",
		"a.b.c.d.e.example.org. 3 IN A 198.51.100.2",
		"odd.example.org. 3 IN TYPE65300 \\# 3 abcdef",
		"svcb.example.org. 3 IN HTTPS 1 . alpn=h2 port=8443",
	}
}

func podConf() ResolvConf {
	return ResolvConf{
		Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		Search:      []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		Ndots:       5,
	}
}

// newTestProxy returns a proxy before srv that ends with the test.
func newTestProxy(t *testing.T, srv *dnsproxytest.Server, rc ResolvConf) *Proxy {
	t.Helper()
	p := newProxy(Config{Pod: rc, Dial: srv.Dial})
	t.Cleanup(func() { p.Close() })
	return p
}

// ask sends m to p and returns its answer, nil if there is none.
func ask(t *testing.T, p *Proxy, m *dns.Msg, udp bool) *dns.Msg {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := answerTo(t.Context(), p, wire, udp)
	if buf == nil {
		return nil
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(buf); err != nil {
		t.Fatalf("unpack reply: %v", err)
	}
	if reply.Id != m.Id || !reply.Response || reply.Opcode != m.Opcode {
		t.Errorf("header: got %+v to %+v", reply.MsgHdr, m.MsgHdr)
	}
	return reply
}

func question(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

// text returns records as zone file lines, single-spaced.
func text(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		out = append(out, strings.Join(strings.Fields(rr.String()), " "))
	}
	return out
}

func TestAnswer(t *testing.T) {
	const (
		soa     = "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"
		example = "example.org. 300 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 60"
	)
	tests := []struct {
		name   string
		qname  string
		qtype  uint16
		rcode  int
		answer []string
		ns     []string
		asked  []string // without "udp 192.0.2.53 "
	}{
		{name: "bare-name", qname: "orders.", qtype: dns.TypeA,
			answer: []string{"orders. 5 IN CNAME orders.shop.svc.cluster.local.", "orders.shop.svc.cluster.local. 5 IN A 192.0.2.1"},
			asked:  []string{"orders.shop.svc.cluster.local. A", "orders.svc.cluster.local. A", "orders.cluster.local. A"}},
		{name: "case-kept", qname: "oRDers.", qtype: dns.TypeA,
			answer: []string{"oRDers. 5 IN CNAME oRDers.shop.svc.cluster.local.", "oRDers.shop.svc.cluster.local. 5 IN A 192.0.2.1"},
			asked:  []string{"oRDers.shop.svc.cluster.local. A", "oRDers.svc.cluster.local. A", "oRDers.cluster.local. A"}},
		{name: "other-namespace", qname: "orders.other.", qtype: dns.TypeA,
			answer: []string{"orders.other. 20 IN CNAME orders.other.svc.cluster.local.", "orders.other.svc.cluster.local. 20 IN A 192.0.2.2"},
			asked:  []string{"orders.other.shop.svc.cluster.local. A", "orders.other.svc.cluster.local. A", "orders.other.cluster.local. A"}},
		{name: "AAAA-of-the-name-that-has-A", qname: "orders.other.", qtype: dns.TypeAAAA,
			answer: []string{"orders.other. 5 IN CNAME orders.other.svc.cluster.local."}, ns: []string{soa},
			asked: []string{"orders.other.shop.svc.cluster.local. AAAA", "orders.other.svc.cluster.local. AAAA", "orders.other.cluster.local. AAAA",
				"orders.other.svc.cluster.local. A"}},
		{name: "alias-ttl-is-least", qname: "dual.", qtype: dns.TypeAAAA,
			answer: []string{"dual. 7 IN CNAME dual.shop.svc.cluster.local.", "dual.shop.svc.cluster.local. 7 IN AAAA 2001:db8::3"},
			asked:  []string{"dual.shop.svc.cluster.local. AAAA", "dual.svc.cluster.local. AAAA", "dual.cluster.local. AAAA"}},
		{name: "alias-ttl-capped", qname: "dual.", qtype: dns.TypeA,
			answer: []string{"dual. 30 IN CNAME dual.shop.svc.cluster.local.", "dual.shop.svc.cluster.local. 60 IN A 192.0.2.3"},
			asked:  []string{"dual.shop.svc.cluster.local. A", "dual.svc.cluster.local. A", "dual.cluster.local. A"}},
		{name: "chain", qname: "alias.", qtype: dns.TypeA,
			answer: []string{"alias. 9 IN CNAME alias.shop.svc.cluster.local.", "alias.shop.svc.cluster.local. 9 IN CNAME www.example.org.",
				"www.example.org. 100 IN A 198.51.100.1"},
			asked: []string{"alias.shop.svc.cluster.local. A", "alias.svc.cluster.local. A", "alias.cluster.local. A"}},
		{name: "SRV", qname: "_http._tcp.orders.", qtype: dns.TypeSRV,
			answer: []string{"_http._tcp.orders. 5 IN CNAME _http._tcp.orders.shop.svc.cluster.local.",
				"_http._tcp.orders.shop.svc.cluster.local. 5 IN SRV 0 100 8080 orders.shop.svc.cluster.local."},
			asked: []string{"_http._tcp.orders.shop.svc.cluster.local. SRV", "_http._tcp.orders.svc.cluster.local. SRV", "_http._tcp.orders.cluster.local. SRV"}},
		{name: "search-goes-on-after-NODATA", qname: "text.", qtype: dns.TypeTXT,
			answer: []string{"text. 5 IN CNAME text.cluster.local.", `text.cluster.local. 5 IN TXT "found later"`},
			asked:  []string{"text.shop.svc.cluster.local. TXT", "text.svc.cluster.local. TXT", "text.cluster.local. TXT"}},
		{name: "NODATA-remembered", qname: "orders.", qtype: dns.TypeMX,
			answer: []string{"orders. 5 IN CNAME orders.shop.svc.cluster.local."}, ns: []string{soa},
			asked: []string{"orders.shop.svc.cluster.local. MX", "orders.svc.cluster.local. MX", "orders.cluster.local. MX", "orders. MX"}},
		{name: "internet-after-search", qname: "www.example.org.", qtype: dns.TypeA,
			answer: []string{"www.example.org. 100 IN A 198.51.100.1"},
			asked: []string{"www.example.org.shop.svc.cluster.local. A", "www.example.org.svc.cluster.local. A",
				"www.example.org.cluster.local. A", "www.example.org. A"}},
		{name: "NODATA-of-the-name-itself", qname: "www.example.org.", qtype: dns.TypeAAAA, ns: []string{example},
			asked: []string{"www.example.org.shop.svc.cluster.local. AAAA", "www.example.org.svc.cluster.local. AAAA",
				"www.example.org.cluster.local. AAAA", "www.example.org. AAAA"}},
		{name: "NXDOMAIN", qname: "gone.example.org.", qtype: dns.TypeA, rcode: dns.RcodeNameError, ns: []string{example},
			asked: []string{"gone.example.org.shop.svc.cluster.local. A", "gone.example.org.svc.cluster.local. A",
				"gone.example.org.cluster.local. A", "gone.example.org. A"}},
		{name: "complete-name-first", qname: "orders.shop.svc.cluster.local.", qtype: dns.TypeA,
			answer: []string{"orders.shop.svc.cluster.local. 5 IN A 192.0.2.1"},
			asked:  []string{"orders.shop.svc.cluster.local. A"}},
		{name: "complete-name-AAAA", qname: "orders.shop.svc.cluster.local.", qtype: dns.TypeAAAA, ns: []string{soa},
			asked: []string{"orders.shop.svc.cluster.local. AAAA"}},
		{name: "complete-name-NXDOMAIN", qname: "gone.shop.svc.cluster.local.", qtype: dns.TypeA, rcode: dns.RcodeNameError, ns: []string{soa},
			asked: []string{"gone.shop.svc.cluster.local. A"}},
		{name: "enough-dots-first", qname: "a.b.c.d.e.example.org.", qtype: dns.TypeA,
			answer: []string{"a.b.c.d.e.example.org. 3 IN A 198.51.100.2"},
			asked:  []string{"a.b.c.d.e.example.org. A"}},
		{name: "enough-dots-NXDOMAIN", qname: "x.b.c.d.e.example.org.", qtype: dns.TypeA, rcode: dns.RcodeNameError, ns: []string{example},
			asked: []string{"x.b.c.d.e.example.org. A", "x.b.c.d.e.example.org.shop.svc.cluster.local. A",
				"x.b.c.d.e.example.org.svc.cluster.local. A", "x.b.c.d.e.example.org.cluster.local. A"}},
		{name: "pointer", qname: "1.2.0.192.in-addr.arpa.", qtype: dns.TypePTR,
			answer: []string{"1.2.0.192.in-addr.arpa. 30 IN PTR orders.shop.svc.cluster.local."},
			asked:  []string{"1.2.0.192.in-addr.arpa. PTR"}},
		{name: "pointer-NXDOMAIN", qname: "9.2.0.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: dns.RcodeNameError,
			ns:    []string{"2.0.192.in-addr.arpa. 30 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 60"},
			asked: []string{"9.2.0.192.in-addr.arpa. PTR"}},
		{name: "unknown-type", qname: "odd.example.org.", qtype: 65300,
			answer: []string{`odd.example.org. 3 CLASS1 TYPE65300 \# 3 abcdef`},
			asked: []string{"odd.example.org.shop.svc.cluster.local.", "odd.example.org.svc.cluster.local.", "odd.example.org.cluster.local.",
				"odd.example.org."}},
		{name: "HTTPS", qname: "svcb.example.org.", qtype: dns.TypeHTTPS,
			answer: []string{`svcb.example.org. 3 IN HTTPS 1 . alpn="h2" port="8443"`},
			asked: []string{"svcb.example.org.shop.svc.cluster.local. HTTPS", "svcb.example.org.svc.cluster.local. HTTPS",
				"svcb.example.org.cluster.local. HTTPS", "svcb.example.org. HTTPS"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, world()...)
				p := newTestProxy(t, srv, podConf())
				got := ask(t, p, question(tt.qname, tt.qtype), true)
				if got.Rcode != tt.rcode || !got.RecursionAvailable || !got.RecursionDesired || got.Truncated {
					t.Errorf("header: got %v, want rcode %s", got.MsgHdr, dns.RcodeToString[tt.rcode])
				}
				if want := question(tt.qname, tt.qtype).Question; !cmp.Equal(want, got.Question) {
					t.Errorf("question: got %v", got.Question)
				}
				if diff := cmp.Diff(tt.answer, text(got.Answer)); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.ns, text(got.Ns)); diff != "" {
					t.Errorf("authority (-want +got):\n%s", diff)
				}
				if len(got.Extra) != 0 {
					t.Errorf("additional: got %v", got.Extra)
				}
				synctest.Wait() // for the questions that lost
				var asked []string
				for _, a := range srv.Asked() {
					asked = append(asked, strings.TrimSpace(strings.TrimPrefix(a, "udp 192.0.2.53 ")))
				}
				slices.Sort(asked) // those of a step go out at the same time; TestPlan has the order of steps
				slices.Sort(tt.asked)
				if diff := cmp.Diff(tt.asked, asked); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestSearchErrors checks what errors of nameservers do to a search.
func TestSearchErrors(t *testing.T) {
	type rcodes map[string]int // of names; others are as in the world
	tests := []struct {
		name  string
		qname string
		fail  rcodes
		want  int
		data  bool
		asked int
	}{
		{"SERVFAIL-goes-on", "orders.other.", rcodes{"orders.other.shop.svc.cluster.local.": dns.RcodeServerFailure}, dns.RcodeSuccess, true, 3},
		{"SERVFAIL-beats-NXDOMAIN", "gone.", rcodes{"gone.svc.cluster.local.": dns.RcodeServerFailure}, dns.RcodeServerFailure, false, 4},
		{"REFUSED-ends-the-list", "www.example.org.", rcodes{"www.example.org.shop.svc.cluster.local.": dns.RcodeRefused}, dns.RcodeSuccess, true, 4},
		{"REFUSED-beats-NXDOMAIN", "gone.", rcodes{"gone.shop.svc.cluster.local.": dns.RcodeRefused}, dns.RcodeRefused, false, 4},
		{"last-fails", "gone.", rcodes{"gone.": dns.RcodeServerFailure}, dns.RcodeServerFailure, false, 4},
		{"settled-by-NXDOMAIN", "x.b.c.d.e.example.org.", rcodes{"x.b.c.d.e.example.org.cluster.local.": dns.RcodeServerFailure},
			dns.RcodeNameError, false, 4},
		{"settled-by-SERVFAIL", "x.b.c.d.e.example.org.", rcodes{"x.b.c.d.e.example.org.": dns.RcodeServerFailure},
			dns.RcodeServerFailure, false, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, world()...)
				srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
					if rcode, ok := tt.fail[q.Msg.Question[0].Name]; ok {
						reply = new(dns.Msg).SetRcode(q.Msg, rcode)
						reply.SetEdns0(1232, false)
					}
					return []*dns.Msg{reply}
				})
				p := newTestProxy(t, srv, podConf())
				got := ask(t, p, question(tt.qname, dns.TypeA), true)
				if got.Rcode != tt.want || len(got.Answer) > 0 != tt.data {
					t.Errorf("got %v", got)
				}
				synctest.Wait()
				if asked := srv.Asked(); len(asked) != tt.asked {
					t.Errorf("asked: got %q, want %d", asked, tt.asked)
				}
				if got := p.Stats().Failed; got != 0 {
					t.Errorf("failed: got %d, want 0", got)
				}
			})
		})
	}
}

// TestLaptopsSearchList asks what a C library makes of short names with the laptop's search list, where the pod's nameservers
// fail for names outside of the cluster, or say nothing at all.
func TestLaptopsSearchList(t *testing.T) {
	for _, tt := range []struct {
		name, qname string
		rcode       int // of names outside, -1 for silence
		want        int
	}{
		{"fails", "orders.home.example.", dns.RcodeServerFailure, dns.RcodeNameError},
		{"refused", "orders.home.example.", dns.RcodeRefused, dns.RcodeNameError},
		{"silent", "orders.home.example.", -1, dns.RcodeNameError},
		{"exists-not", "orders.home.example.", dns.RcodeNameError, dns.RcodeNameError}, // as it is
		{"nobody", "nobody.home.example.", dns.RcodeServerFailure, dns.RcodeServerFailure},
		{"nobody-silent", "nobody.home.example.", -1, dns.RcodeServerFailure},
		{"other-domain", "orders.other.example.", dns.RcodeServerFailure, dns.RcodeServerFailure},
		{"local", "orders.corp.example.", dns.RcodeServerFailure, dns.RcodeServerFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, world()...)
				srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
					switch {
					case !strings.HasSuffix(q.Msg.Question[0].Name, ".example."):
						return []*dns.Msg{reply}
					case tt.rcode < 0:
						return nil
					}
					return []*dns.Msg{new(dns.Msg).SetRcode(q.Msg, tt.rcode)}
				})
				p := newProxy(Config{Pod: podConf(), Dial: srv.Dial, Local: []string{"corp.example."}, DialLaptop: srv.Dial})
				t.Cleanup(func() { p.Close() })
				p.SetLaptop(ResolvConf{Nameservers: podConf().Nameservers, Search: []string{".", "home.example", "corp.example"}})
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} { // orders has no AAAA: that of the long name must not fail
					got := ask(t, p, question(tt.qname, qtype), true)
					if got == nil || got.Rcode != tt.want || len(got.Answer) > 0 || got.Question[0].Name != tt.qname {
						t.Errorf("got %v", got)
					}
				}
			})
		})
	}
}

// TestSilenceIsServfail checks that names are not said to be missing when nobody answered.
func TestSilenceIsServfail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			if strings.HasSuffix(q.Msg.Question[0].Name, ".svc.cluster.local.") {
				return nil
			}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, podConf())
		start := time.Now()
		got := ask(t, p, question("www.example.org.", dns.TypeA), true)
		if got.Rcode != dns.RcodeServerFailure || len(got.Answer) != 0 {
			t.Errorf("got %v", got)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("took %v, want two tries of 2 s", took)
		}
		synctest.Wait() // the third name of the search list was asked for at the same time
		want := Stats{Queries: 1, ServFail: 1, Failed: 1, Upstream: 5, UpstreamErrors: 4, Entries: 3}
		if diff := cmp.Diff(want, p.Stats()); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
	})
}

func TestNoNameservers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t)
		p := newTestProxy(t, srv, ResolvConf{})
		if got := ask(t, p, question("example.org.", dns.TypeA), true); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("got %v", got)
		}
	})
}

func TestRefusals(t *testing.T) {
	q := question("example.org.", dns.TypeA)
	with := func(change func(m *dns.Msg)) *dns.Msg {
		m := q.Copy()
		change(m)
		return m
	}
	tests := []struct {
		name  string
		query *dns.Msg
		rcode int
	}{
		{"AXFR", question("example.org.", dns.TypeAXFR), dns.RcodeRefused},
		{"IXFR", question("example.org.", dns.TypeIXFR), dns.RcodeRefused},
		{"OPT", question("example.org.", dns.TypeOPT), dns.RcodeRefused},
		{"TKEY", question("example.org.", dns.TypeTKEY), dns.RcodeRefused},
		{"CHAOS", with(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"NOTIFY", with(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"UPDATE", with(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"no-question", with(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"two-questions", with(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"two-OPTs", with(func(m *dns.Msg) { m.SetEdns0(1232, false).SetEdns0(1232, false) }), dns.RcodeFormatError},
		{"EDNS-1", with(func(m *dns.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, world()...)
				p := newTestProxy(t, srv, podConf())
				if got := ask(t, p, tt.query, true); got == nil || got.Rcode != tt.rcode {
					t.Errorf("got %v, want %s", got, dns.RcodeToString[tt.rcode])
				}
				if asked := srv.Asked(); asked != nil {
					t.Errorf("asked %q", asked)
				}
				if diff := cmp.Diff(Stats{Queries: 1, Refused: 1}, p.Stats()); diff != "" {
					t.Errorf("stats (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestMalformed(t *testing.T) {
	good, err := question("example.org.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	response := append([]byte(nil), good...)
	response[2] |= 0x80
	tests := []struct {
		name  string
		query []byte
		want  []byte // the header's first four bytes
	}{
		{"empty", nil, nil},
		{"short", good[:11], nil},
		{"response", response, nil},
		{"cut-question", good[:len(good)-1], []byte{good[0], good[1], 0x81, 0x81}},
		{"pointer-loop", append(append([]byte(nil), good[:12]...), 0xc0, 12, 0, 1, 0, 1), []byte{good[0], good[1], 0x81, 0x81}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newTestProxy(t, dnsproxytest.New(t), podConf())
			got := answerTo(t.Context(), p, tt.query, true)
			if diff := cmp.Diff(tt.want, got[:min(len(got), 4)], cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAny checks that a query for everything is answered with little (RFC 8482 §4.2), by us.
func TestAny(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		p := newTestProxy(t, srv, podConf())
		got := ask(t, p, question("Orders.", dns.TypeANY), true)
		if diff := cmp.Diff([]string{`Orders. 3600 IN HINFO "RFC8482" ""`}, text(got.Answer)); diff != "" || got.Rcode != dns.RcodeSuccess {
			t.Errorf("rcode %d, answer (-want +got):\n%s", got.Rcode, diff)
		}
		if asked := srv.Asked(); asked != nil {
			t.Errorf("asked %q", asked)
		}
	})
}

// TestServersCase checks names that the nameserver spells otherwise than the program: CoreDNS says lower case.
func TestServersCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(func(_ dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			for _, rr := range reply.Answer {
				rr.Header().Name = strings.ToLower(rr.Header().Name)
			}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, podConf())
		for _, name := range []string{"orders.", "ORDERS.", "Orders."} {
			got := ask(t, p, question(name, dns.TypeA), true)
			want := []string{name + " 5 IN CNAME orders.shop.svc.cluster.local.", "orders.shop.svc.cluster.local. 5 IN A 192.0.2.1"}
			if diff := cmp.Diff(want, text(got.Answer)); diff != "" || got.Question[0].Name != name {
				t.Errorf("%v (-want +got):\n%s", got.Question, diff)
			}
		}
	})
}
