package dnsproxy

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

// TestCacheByTTL checks that an answer is asked for once while it is valid, that it grows old, and that it is never older
// than its TTL.
func TestCacheByTTL(t *testing.T) {
	tests := []struct {
		name, qname string
		qtype       uint16
		ttl         time.Duration // 0: not kept
	}{
		{"address", "a.b.c.d.e.example.org.", dns.TypeA, 3 * time.Second},
		{"least-of-all-records", "alias.shop.svc.cluster.local.", dns.TypeA, 9 * time.Second},
		{"NXDOMAIN-by-minimum", "gone.shop.svc.cluster.local.", dns.TypeTXT, 5 * time.Second},
		{"NODATA-by-minimum", "orders.shop.svc.cluster.local.", dns.TypeMX, 5 * time.Second},
		{"NODATA-by-TTL-of-SOA", "short.example.net.", dns.TypeMX, 2 * time.Second},
		{"NODATA-after-alias", "nothing.example.net.", dns.TypeMX, time.Second},
		{"NXDOMAIN-without-SOA", "example.com.", dns.TypeA, 0},
		{"zero", "zero.example.net.", dns.TypeA, 0},
		{"highest-bit-is-zero", "huge.example.net.", dns.TypeA, 0}, // RFC 2181 §8
		{"long-is-capped", "long.example.net.", dns.TypeA, maxTTL},
		{"long-NXDOMAIN-is-capped", "gone.example.com.", dns.TypeA, 0},
		{"long-negative-is-capped", "gone.long.example.net.", dns.TypeA, maxNegativeTTL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, append(world(),
					"example.net. 2 IN SOA ns.example.net. hostmaster.example.net. 1 7200 1800 86400 60",
					"long.example.net. 86400 IN SOA ns.example.net. hostmaster.example.net. 1 7200 1800 86400 86400",
					"short.example.net. 60 IN A 192.0.2.1",
					"nothing.example.net. 1 IN CNAME short.example.net.",
					"zero.example.net. 0 IN A 192.0.2.1",
					"huge.example.net. 2147483648 IN A 192.0.2.1",
					"long.example.net. 86400 IN A 192.0.2.1")...)
				p := newTestProxy(t, srv, plainConf("192.0.2.53"))
				first := ask(t, p, question(tt.qname, tt.qtype), true)
				if asked := len(srv.Asked()); asked == 0 {
					t.Fatal("nobody was asked")
				}
				if tt.ttl > 0 {
					time.Sleep(tt.ttl - time.Millisecond)
					again := ask(t, p, question(tt.qname, tt.qtype), true)
					if asked := srv.Asked(); asked != nil {
						t.Errorf("asked %q again before it was over", asked)
					}
					age := uint32(tt.ttl / time.Second) // rounded up
					for i, rr := range append(again.Answer, again.Ns...) {
						if was := append(first.Answer, first.Ns...)[i].Header().Ttl; rr.Header().Ttl != was-age {
							t.Errorf("TTL of %v: want %d-%d", rr, was, age)
						}
					}
					if again.Rcode != first.Rcode || len(again.Answer) != len(first.Answer) || len(again.Ns) != len(first.Ns) {
						t.Errorf("got %v, first %v", again, first)
					}
					time.Sleep(time.Millisecond)
				}
				ask(t, p, question(tt.qname, tt.qtype), true)
				if asked := srv.Asked(); asked == nil {
					t.Error("an answer was served that is over")
				}
			})
		})
	}
}

// TestCacheFollowsTheCluster checks that a Service that is deleted and made anew is seen within its TTL, both ways.
func TestCacheFollowsTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		var there atomic.Bool
		srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			if !there.Load() && strings.HasPrefix(q.Msg.Question[0].Name, "dual.") {
				reply.Answer, reply.Rcode = nil, dns.RcodeNameError
				reply.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "cluster.local.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30},
					Ns: "ns.", Mbox: "mbox.", Minttl: 5}}
			}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, podConf())
		for i, want := range []struct {
			there bool
			wait  time.Duration
			rcode int
		}{
			{false, 0, dns.RcodeNameError},
			{true, 0, dns.RcodeNameError},
			{true, 5 * time.Second, dns.RcodeSuccess},
			{false, 6 * time.Second, dns.RcodeSuccess},
			{false, time.Second, dns.RcodeNameError},
		} {
			there.Store(want.there)
			time.Sleep(want.wait)
			if got := ask(t, p, question("dual.", dns.TypeAAAA), true); got.Rcode != want.rcode {
				t.Errorf("%d: got %s, want %s", i, dns.RcodeToString[got.Rcode], dns.RcodeToString[want.rcode])
			}
		}
	})
}

// TestCacheFailures checks that failures are kept for a second, and longer if there is one after the other.
func TestCacheFailures(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeFormatError, dns.RcodeNotImplemented} {
		t.Run(dns.RcodeToString[rcode], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, world()...)
				srv.Handle(says(rcode))
				p := newTestProxy(t, srv, plainConf("192.0.2.53"))
				first := ask(t, p, question("www.example.org.", dns.TypeA), true)
				for i, ttl := range []time.Duration{1, 2, 4, 4} {
					time.Sleep(ttl*time.Second - time.Nanosecond)
					srv.Asked()
					got := ask(t, p, question("www.example.org.", dns.TypeA), true)
					if asked := srv.Asked(); got.Rcode != first.Rcode || len(asked) != 0 {
						t.Errorf("%d: asked %q within %d s, got %v", i, asked, ttl, got)
					}
					time.Sleep(time.Nanosecond)
					ask(t, p, question("www.example.org.", dns.TypeA), true)
					if asked := srv.Asked(); len(asked) == 0 {
						t.Errorf("%d: not asked after %d s", i, ttl)
					}
				}
				srv.Handle(honest)
				time.Sleep(maxFailureTTL)
				if got := ask(t, p, question("www.example.org.", dns.TypeA), true); len(got.Answer) != 1 {
					t.Errorf("got %v", got)
				}
			})
		})
	}
}

// TestCacheSilence checks that what nobody answers is not asked again at once, and that a program hears of it at once.
func TestCacheSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(silent)
		p := newTestProxy(t, srv, plainConf("192.0.2.53"))
		for i, want := range []time.Duration{4 * time.Second, 0} {
			start := time.Now()
			got := ask(t, p, question("www.example.org.", dns.TypeA), true)
			if took := time.Since(start); got.Rcode != dns.RcodeServerFailure || took != want {
				t.Errorf("%d: %s after %v, want SERVFAIL after %v", i, dns.RcodeToString[got.Rcode], took, want)
			}
		}
		if got := p.Stats(); got.Failed != 2 || got.Upstream != 2 {
			t.Errorf("stats %+v", got)
		}
		srv.Handle(honest)
		time.Sleep(minFailureTTL)
		if got := ask(t, p, question("www.example.org.", dns.TypeA), true); len(got.Answer) != 1 {
			t.Errorf("got %v", got)
		}
	})
}

// TestCacheKey checks what makes two questions one: not their case, which each answer keeps.
func TestCacheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		p := newTestProxy(t, srv, podConf())
		for _, name := range []string{"DUAL.", "dual.", "dUaL."} {
			got := ask(t, p, question(name, dns.TypeA), true)
			want := []string{name + " 30 IN CNAME " + name + "shop.svc.cluster.local.", name + "shop.svc.cluster.local. 60 IN A 192.0.2.3"}
			if diff := cmp.Diff(want, text(got.Answer)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		synctest.Wait()
		if asked := srv.Asked(); len(asked) != 3 {
			t.Errorf("asked %q, want each name of the search list once", asked)
		}
		with := func(change func(*dns.Msg)) *dns.Msg {
			m := question("www.example.org.", dns.TypeA)
			change(m)
			return m
		}
		p2 := newTestProxy(t, srv, plainConf("192.0.2.53"))
		for _, m := range []*dns.Msg{
			question("www.example.org.", dns.TypeA),
			question("www.example.org.", dns.TypeAAAA),
			with(func(m *dns.Msg) { m.SetEdns0(1232, true) }),
			with(func(m *dns.Msg) { m.CheckingDisabled = true }),
			with(func(m *dns.Msg) { m.AuthenticatedData = true }),
			with(func(m *dns.Msg) { m.RecursionDesired = false }),
		} {
			ask(t, p2, m, true)
			if asked := srv.Asked(); len(asked) != 1 {
				t.Errorf("%v: asked %q, want one question", m, asked)
			}
		}
	})
}

// TestPrefetch checks that what is in use is asked for before it expires, and that nothing else is.
func TestPrefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		p := newTestProxy(t, srv, plainConf("192.0.2.53"))
		const name = "orders.shop.svc.cluster.local." // 5 s
		begin := time.Now()
		for time.Since(begin) < time.Minute {
			start := time.Now()
			got := ask(t, p, question(name, dns.TypeA), true)
			if len(got.Answer) != 1 || time.Since(start) != 0 {
				t.Fatalf("got %v after %v", got, time.Since(start))
			}
			time.Sleep(100 * time.Millisecond)
		}
		asked := len(srv.Asked())
		if got := p.Stats(); asked < 12 || asked > 15 || got.Prefetched != uint64(asked-1) || got.Cached != got.Queries-1 {
			t.Errorf("asked %d times in a minute, stats %+v", asked, got)
		}
		time.Sleep(time.Minute) // nobody uses it any more
		if asked := srv.Asked(); len(asked) > 1 {
			t.Errorf("asked for nobody: %q", asked)
		}
	})
}

// TestPrefetchFails checks that an answer is not served beyond its TTL because a new one could not be had.
func TestPrefetchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		p := newTestProxy(t, srv, plainConf("192.0.2.53"))
		const name = "orders.shop.svc.cluster.local."
		ask(t, p, question(name, dns.TypeA), true)
		srv.Handle(says(dns.RcodeServerFailure))
		for range 49 {
			time.Sleep(100 * time.Millisecond)
			if got := ask(t, p, question(name, dns.TypeA), true); len(got.Answer) != 1 {
				t.Fatalf("got %v", got)
			}
		}
		time.Sleep(100 * time.Millisecond)
		if got := ask(t, p, question(name, dns.TypeA), true); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("got %v", got)
		}
	})
}

func TestCacheBounded(t *testing.T) {
	c := newCache()
	now := time.Now()
	put := func(i, records int) {
		m := question(fmt.Sprintf("n%d.example.org.", i), dns.TypeTXT)
		for range records {
			rr, err := dns.NewRR(m.Question[0].Name + ` 60 IN TXT "` + strings.Repeat("x", 200) + `"`)
			if err != nil {
				t.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		c.put(query{name: m.Question[0].Name, qtype: dns.TypeTXT}, m, now, false)
	}
	has := func(i int) bool {
		a, _ := c.get(query{name: fmt.Sprintf("n%d.example.org.", i), qtype: dns.TypeTXT}, now)
		return a.msg != nil
	}
	for i := range maxEntries + 100 {
		put(i, 1)
		if !has(0) { // used all the time
			t.Fatalf("entry 0 is gone at %d", i)
		}
	}
	if c.len() != maxEntries || has(1) || !has(maxEntries+99) {
		t.Errorf("%d entries, the oldest there %v, the latest %v", c.len(), has(1), has(maxEntries+99))
	}
	for i := range 200 {
		put(10_000+i, 200)
	}
	if c.bytes > maxCacheBytes || c.len() == 0 {
		t.Errorf("%d bytes, %d entries", c.bytes, c.len())
	}
}

// TestElapsed checks that a laptop's sleep ages answers: a clock that stood still is not believed.
func TestElapsed(t *testing.T) {
	since := time.Now()
	for _, tt := range []struct {
		name string
		now  time.Time
		want time.Duration
	}{
		{"awake", since.Add(time.Second), time.Second},
		{"only-the-wall-clock-went-on", since.Add(time.Hour).Round(0), time.Hour},
		{"wall-clock-set-back", since.Add(-time.Hour).Round(0), -time.Hour}, // nothing else is known
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := elapsed(since, tt.now); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestPoison checks that records about other names reach nobody.
func TestPoison(t *testing.T) {
	const victim = "bank.example.com."
	rr := func(text string) dns.RR {
		out, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, append(world(), victim+" 60 IN A 192.0.2.99")...)
		srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			if q.Msg.Question[0].Name != victim {
				reply.Answer = append([]dns.RR{rr(victim + " 60 IN A 203.0.113.66")}, reply.Answer...)
				reply.Ns = append(reply.Ns, rr("com. 60 IN NS "+victim), rr("com. 60 IN SOA ns. mbox. 1 1 1 1 60"))
				reply.Extra = append(reply.Extra, rr(victim+" 60 IN A 203.0.113.66"))
			}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, plainConf("192.0.2.53"))
		for _, m := range []*dns.Msg{
			question("www.example.org.", dns.TypeA), question("alias.shop.svc.cluster.local.", dns.TypeA),
			question("_http._tcp.orders.shop.svc.cluster.local.", dns.TypeSRV), question("gone.example.org.", dns.TypeA),
		} {
			for range 2 {
				got := ask(t, p, m, true)
				if said := got.String(); strings.Contains(said, victim) || strings.Contains(said, "\ncom.") {
					t.Errorf("got %v", got)
				}
				if m.Question[0].Name != "gone.example.org." && len(got.Answer) == 0 {
					t.Errorf("nothing is left: %v", got)
				}
			}
		}
		if got := ask(t, p, question(victim, dns.TypeA), true); len(got.Answer) != 1 || !strings.Contains(got.Answer[0].String(), "192.0.2.99") {
			t.Errorf("victim: got %v", got)
		}
	})
}

// TestScrubKeeps checks that what belongs to an answer stays: targets' addresses, DNAMEs, proofs.
func TestScrubKeeps(t *testing.T) {
	for _, tt := range []struct {
		name, qname       string
		answer, ns, extra []string
		loses             int
	}{
		{"SRV-with-addresses", "_http._tcp.Orders.example.org.", []string{"_http._tcp.orders.example.org. 5 IN SRV 0 1 80 A.example.org."}, nil,
			[]string{"a.example.org. 5 IN A 192.0.2.1", "a.example.org. 5 IN AAAA 2001:db8::1"}, 0},
		{"chain-in-any-order", "a.example.org.", []string{"c.example.org. 5 IN A 192.0.2.1", "b.example.org. 5 IN CNAME c.example.org.",
			"a.example.org. 5 IN CNAME b.example.org."}, nil, nil, 0},
		{"DNAME", "x.old.example.org.", []string{"old.example.org. 5 IN DNAME new.example.org.", "x.old.example.org. 5 IN CNAME x.new.example.org.",
			"x.new.example.org. 5 IN A 192.0.2.1"}, nil, nil, 0},
		{"denial", "x.example.org.", nil, []string{"example.org. 5 IN SOA ns. mbox. 1 1 1 1 5", "w.example.org. 5 IN NSEC z.example.org. A"}, nil, 0},
		{"HTTPS-of-itself", "x.example.org.", []string{"x.example.org. 5 IN HTTPS 1 . alpn=h2"}, nil, []string{"x.example.org. 5 IN A 192.0.2.1"}, 0},
		{"loop", "a.example.org.", []string{"a.example.org. 5 IN CNAME a.example.org."}, nil, nil, 0},
		{"sibling", "a.example.org.", []string{"a.example.org. 5 IN A 192.0.2.1", "b.example.org. 5 IN A 192.0.2.1"}, nil, nil, 1},
		{"zone-below", "example.org.", nil, []string{"a.example.org. 5 IN SOA ns. mbox. 1 1 1 1 5"}, nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := question(tt.qname, dns.TypeA)
			total := 0
			for _, sec := range []struct {
				to   *[]dns.RR
				from []string
			}{{&m.Answer, tt.answer}, {&m.Ns, tt.ns}, {&m.Extra, tt.extra}} {
				for _, line := range sec.from {
					rr, err := dns.NewRR(line)
					if err != nil {
						t.Fatal(err)
					}
					*sec.to = append(*sec.to, rr)
					total++
				}
			}
			scrub(m, query{name: tt.qname})
			if left := len(m.Answer) + len(m.Ns) + len(m.Extra); left != total-tt.loses {
				t.Errorf("%d of %d records are left:\n%v", left, total, m)
			}
		})
	}
}

// TestLocal checks which names go to the laptop's resolver, and that no other does.
func TestLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := dnsproxytest.New(t, world()...)
		laptop := dnsproxytest.New(t, "printer.home.example. 60 IN A 198.51.100.9", "home.example. 60 IN SOA ns. mbox. 1 1 1 1 60")
		p := newProxy(Config{
			Pod: podConf(), Dial: pod.Dial, DialLaptop: laptop.Dial, Local: []string{"home.example."},
			Hosts: map[string][]netip.Addr{
				"Pinned.example.com":            {netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")},
				"orders.shop.svc.cluster.local": {netip.MustParseAddr("192.0.2.78")},
			},
		})
		t.Cleanup(func() { p.Close() })
		if got := ask(t, p, question("printer.home.example.", dns.TypeA), true); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("without a nameserver: got %v", got)
		}
		p.SetLaptop(plainConf("198.51.100.53"))
		for _, tt := range []struct {
			name        string
			qtype       uint16
			rcode       int
			answer      string // of the last record
			pod, laptop int    // questions
		}{
			{"Printer.Home.example.", dns.TypeA, 0, "198.51.100.9", 0, 1},
			{"printer.home.example.", dns.TypeA, 0, "198.51.100.9", 0, 0},
			{"nobody.home.example.", dns.TypeA, dns.RcodeNameError, "", 0, 1},
			{"home.example.", dns.TypeMX, 0, "", 0, 1},
			{"xhome.example.", dns.TypeA, dns.RcodeNameError, "", 4, 0},
			{"pinned.example.com.", dns.TypeA, 0, "192.0.2.77", 0, 0},
			{"pinned.EXAMPLE.com.", dns.TypeAAAA, 0, "2001:db8::77", 0, 0},
			{"pinned.example.com.", dns.TypeMX, 0, "", 0, 0},
			{"below.pinned.example.com.", dns.TypeA, dns.RcodeNameError, "", 4, 0},
			{"orders.", dns.TypeA, 0, "192.0.2.78", 0, 0},
		} {
			got := ask(t, p, question(tt.name, tt.qtype), true)
			synctest.Wait()
			answer := ""
			if n := len(got.Answer); n > 0 {
				fields := strings.Fields(got.Answer[n-1].String())
				answer = fields[len(fields)-1]
			}
			if asked, local := pod.Asked(), laptop.Asked(); got.Rcode != tt.rcode || answer != tt.answer || len(asked) != tt.pod || len(local) != tt.laptop {
				t.Errorf("%s: got %v\nasked the pod %q, the laptop %q", tt.name, got, asked, local)
			}
		}
		// Another network: what the last one said is forgotten, at once.
		p.SetLaptop(plainConf("198.51.100.54"))
		ask(t, p, question("printer.home.example.", dns.TypeA), true)
		if diff := cmp.Diff([]string{"udp 198.51.100.54 printer.home.example. A"}, laptop.Asked()); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
	})
}

func TestParseDomain(t *testing.T) {
	for in, want := range map[string]string{
		"Corp.Example.org": "corp.example.org.", "corp.": "corp.", "*.corp.example.org": "corp.example.org.", "_x.corp": "_x.corp.", ".": ".",
		"": "", "a..b": "", "192.0.2.0/24": "", "a b": "", "2001:db8::1": "", "*": "", strings.Repeat("x", 64): "",
	} {
		if got, err := ParseDomain(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}
