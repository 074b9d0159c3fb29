package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

// many returns n addresses of one name, 16 bytes each in a packet.
func many(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("many.example.org. 5 IN A 198.51.%d.%d", 100+i/256, i%256))
	}
	return out
}

// plainConf has no search list.
func plainConf(servers ...string) ResolvConf {
	rc := ResolvConf{Ndots: 1}
	for _, s := range servers {
		rc.Nameservers = append(rc.Nameservers, netip.MustParseAddr(s))
	}
	return rc
}

func TestTruncation(t *testing.T) {
	tests := []struct {
		name    string
		records int
		size    uint16 // 0: no EDNS
		udp     bool
		whole   bool
		asked   []string
	}{
		{"fits-512", 29, 0, true, true, []string{"udp"}},
		{"over-512", 30, 0, true, false, []string{"udp"}},
		{"over-512-by-TCP", 30, 0, false, true, []string{"udp"}},
		{"size-below-512-is-512", 29, 100, true, true, []string{"udp"}},
		{"fits-1232", 74, 1232, true, true, []string{"udp"}},
		{"fits-4096", 200, 4096, true, true, []string{"udp", "tcp"}},
		{"over-4096", 300, 65535, true, false, []string{"udp", "tcp"}},
		{"by-TCP", 300, 0, false, true, []string{"udp", "tcp"}},
		{"over-512-and-upstream", 300, 512, true, false, []string{"udp", "tcp"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, many(tt.records)...)
				p := newTestProxy(t, srv, plainConf("192.0.2.53"))
				q := question("many.example.org.", dns.TypeA)
				limit := 65535
				if tt.udp {
					limit = 512
				}
				if tt.size > 0 {
					q.SetEdns0(tt.size, true)
					limit = min(max(limit, int(tt.size)), 4096)
				}
				wire, err := q.Pack()
				if err != nil {
					t.Fatal(err)
				}
				buf := answerTo(t.Context(), p, wire, tt.udp)
				got := new(dns.Msg)
				if err := got.Unpack(buf); err != nil {
					t.Fatal(err)
				}
				if len(buf) > limit || got.Truncated == tt.whole || (len(got.Answer) == tt.records) != tt.whole {
					t.Errorf("got %d bytes, TC %v, %d records; want at most %d, %v, %d", len(buf), got.Truncated, len(got.Answer),
						limit, !tt.whole, tt.records)
				}
				opt := got.IsEdns0()
				if (opt != nil) != (tt.size > 0) {
					t.Errorf("OPT: got %v", opt)
				}
				if opt != nil && (!opt.Do() || opt.UDPSize() != 1232 || opt.Version() != 0) {
					t.Errorf("OPT: got %v", opt)
				}
				var networks []string
				for _, a := range srv.Asked() {
					networks = append(networks, a[:3])
				}
				if diff := cmp.Diff(tt.asked, networks); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestUpstreamQuery checks which parts of a query travel on.
func TestUpstreamQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got *dns.Msg
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			got = q.Msg
			reply.AuthenticatedData, reply.Authoritative = true, true
			reply.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "aa"}}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, plainConf("192.0.2.53"))
		q := question("WWW.example.org.", dns.TypeA)
		q.AuthenticatedData, q.CheckingDisabled = true, true
		q.SetEdns0(4000, true).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
		reply := ask(t, p, q, true)

		opt := got.IsEdns0()
		if got.Id == q.Id || !got.RecursionDesired || !got.AuthenticatedData || !got.CheckingDisabled || got.Question[0].Name != "WWW.example.org." {
			t.Errorf("upstream query: got %v", got)
		}
		if opt == nil || opt.UDPSize() != 1232 || !opt.Do() || len(opt.Option) != 0 {
			t.Errorf("upstream OPT: got %v", opt)
		}
		if !reply.AuthenticatedData || !reply.CheckingDisabled || !reply.Authoritative || len(reply.IsEdns0().Option) != 0 {
			t.Errorf("reply: got %v", reply)
		}
	})
}

func TestAliasIsNotAuthenticated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(func(_ dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			reply.AuthenticatedData = true
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, podConf())
		if got := ask(t, p, question("orders.", dns.TypeA), true); got.AuthenticatedData {
			t.Errorf("got %v", got)
		}
	})
}

// behaviour is what a nameserver does with a query.
type behaviour func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg

func silent(dnsproxytest.Query, *dns.Msg) []*dns.Msg { return nil }

func says(rcode int) behaviour {
	return func(q dnsproxytest.Query, _ *dns.Msg) []*dns.Msg {
		return []*dns.Msg{new(dns.Msg).SetRcode(q.Msg, rcode).SetEdns0(1232, false)}
	}
}

func honest(_ dnsproxytest.Query, reply *dns.Msg) []*dns.Msg { return []*dns.Msg{reply} }

func TestFailover(t *testing.T) {
	const a, b, c, d = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"
	noEDNS := func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
		if q.Msg.IsEdns0() != nil {
			return []*dns.Msg{{MsgHdr: dns.MsgHdr{Id: q.Msg.Id, Response: true, Rcode: dns.RcodeFormatError}}}
		}
		return honest(q, reply)
	}
	strange := func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
		id, name, query := reply.Copy(), reply.Copy(), reply.Copy()
		id.Id++
		name.Question[0].Name = "forged.example.org."
		query.Response = false
		return []*dns.Msg{id, name, query, reply}
	}
	flood := func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
		reply.Id++
		out := make([]*dns.Msg, 2*maxStrange)
		for i := range out {
			out[i] = reply
		}
		return out
	}
	tests := []struct {
		name    string
		servers map[string]behaviour
		rcode   int
		asked   string // addresses in order
		took    time.Duration
	}{
		{"first-answers", map[string]behaviour{a: honest, b: honest}, dns.RcodeSuccess, a, 0},
		{"first-silent", map[string]behaviour{a: silent, b: honest}, dns.RcodeSuccess, a + " " + b, 2 * time.Second},
		{"first-SERVFAIL", map[string]behaviour{a: says(dns.RcodeServerFailure), b: honest}, dns.RcodeSuccess, a + " " + b, 0},
		{"first-REFUSED", map[string]behaviour{a: says(dns.RcodeRefused), b: honest}, dns.RcodeSuccess, a + " " + b, 0},
		{"NXDOMAIN-is-an-answer", map[string]behaviour{a: says(dns.RcodeNameError), b: honest}, dns.RcodeNameError, a, 0},
		{"silent-then-REFUSED", map[string]behaviour{a: silent, b: says(dns.RcodeRefused)}, dns.RcodeRefused, a + " " + b, 2 * time.Second},
		{"all-silent", map[string]behaviour{a: silent, b: silent, c: silent}, dns.RcodeServerFailure, a + " " + b + " " + c, 5 * time.Second},
		{"one-silent", map[string]behaviour{a: silent}, dns.RcodeServerFailure, a + " " + a, 4 * time.Second},
		{"fourth-not-used", map[string]behaviour{a: says(2), b: says(2), c: says(2), d: honest}, dns.RcodeServerFailure, a + " " + b + " " + c, 0},
		{"no-EDNS", map[string]behaviour{a: noEDNS}, dns.RcodeSuccess, a + " " + a, 0},
		{"strange-datagrams", map[string]behaviour{a: strange}, dns.RcodeSuccess, a, 0},
		{"flood", map[string]behaviour{a: flood, b: honest}, dns.RcodeSuccess, a + " " + b, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, world()...)
				srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
					return tt.servers[q.Server.String()](q, reply)
				})
				p := newTestProxy(t, srv, plainConf([]string{a, b, c, d}[:len(tt.servers)]...))
				start := time.Now()
				got := ask(t, p, question("www.example.org.", dns.TypeA), true)
				if got.Rcode != tt.rcode || len(got.Answer) > 0 != (tt.rcode == dns.RcodeSuccess) {
					t.Errorf("got %v", got)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				var asked []string
				for _, a := range srv.Asked() {
					asked = append(asked, strings.Fields(a)[1])
				}
				if got := strings.Join(asked, " "); got != tt.asked {
					t.Errorf("asked: got %q, want %q", got, tt.asked)
				}
			})
		})
	}
}

// TestDeadServerIsLast checks that a silent nameserver costs its time once, and gets another chance later.
func TestDeadServerIsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const a, b = "192.0.2.1", "192.0.2.2"
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			if q.Server.String() == a {
				return nil
			}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, plainConf(a, b))
		for i, want := range []time.Duration{2 * time.Second, 0, 0} {
			start := time.Now()
			ask(t, p, question(fmt.Sprintf("n%d.example.org.", i), dns.TypeA), true)
			if took := time.Since(start); took != want {
				t.Errorf("query %d: took %v, want %v", i, took, want)
			}
		}
		time.Sleep(deadTime)
		srv.Asked()
		srv.Handle(honest)
		ask(t, p, question("www.example.org.", dns.TypeA), true)
		if diff := cmp.Diff([]string{"udp 192.0.2.1 www.example.org. A"}, srv.Asked()); diff != "" {
			t.Errorf("asked later (-want +got):\n%s", diff)
		}
	})
}

func TestDialErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(Config{
			Pod:  plainConf("192.0.2.1", "192.0.2.2"),
			Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) { return nil, errors.New("no route") },
		})
		defer p.Close()
		start := time.Now()
		if got := ask(t, p, question("example.org.", dns.TypeA), true); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("got %v", got)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v, want no time", took)
		}
	})
}

// TestTruncatedUpstream checks what becomes of a truncated answer when the nameserver has no TCP.
func TestTruncatedUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, many(300)...)
		srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			if q.Network == "tcp" {
				return nil
			}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, plainConf("192.0.2.53"))
		got := ask(t, p, question("many.example.org.", dns.TypeA).SetEdns0(4096, false), true)
		if !got.Truncated || len(got.Answer) == 0 || got.Rcode != dns.RcodeSuccess {
			t.Errorf("got TC %v, %d records, rcode %d", got.Truncated, len(got.Answer), got.Rcode)
		}
	})
}

func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(func(_ dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			time.Sleep(time.Second)
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, podConf())
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				got := ask(t, p, question("orders.shop.svc.cluster.local.", dns.TypeA), true)
				if len(got.Answer) != 1 {
					t.Errorf("got %v", got)
				}
			})
		}
		// A client that leaves does not take the answer from the others.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		wire, err := question("orders.shop.svc.cluster.local.", dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		p.Answer(ctx, wire, true)
		wg.Wait()
		if asked := srv.Asked(); len(asked) != 1 {
			t.Errorf("asked: got %q, want one", asked)
		}
		if got := p.Stats(); got.Coalesced != 50 || got.Upstream != 1 {
			t.Errorf("stats: got %+v", got)
		}
	})
}

func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t)
		srv.Handle(silent)
		p := newTestProxy(t, srv, plainConf("192.0.2.53"))
		var dropped atomic.Int64
		var wg sync.WaitGroup
		for i := range maxClients + 10 {
			wg.Go(func() {
				if ask(t, p, question(fmt.Sprintf("n%d.example.org.", i), dns.TypeA), true) == nil {
					dropped.Add(1)
				}
			})
		}
		wg.Wait()
		if got := dropped.Load(); got != 10 {
			t.Errorf("dropped: got %d, want 10", got)
		}
		if got := p.Stats(); got.Dropped != 10 || got.ServFail != maxClients || got.Queries != maxClients+10 {
			t.Errorf("stats: got %+v", got)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t)
		srv.Handle(silent)
		p := newProxy(Config{Pod: plainConf("192.0.2.53"), Dial: srv.Dial})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if got := ask(t, p, question(fmt.Sprintf("n%d.example.org.", i), dns.TypeA), true); got.Rcode != dns.RcodeServerFailure {
					t.Errorf("got %v", got)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		wg.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("close took %v", took)
		}
		if err := p.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: got %v", err)
		}
		if got := ask(t, p, question("example.org.", dns.TypeA), true); got != nil {
			t.Errorf("after close: got %v", got)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, m := range []*dns.Msg{
		question("orders.shop.svc.cluster.local.", dns.TypeA),
		question("1.2.0.192.in-addr.arpa.", dns.TypePTR),
		question("many.example.org.", dns.TypeANY).SetEdns0(700, true),
		question("example.org.", dns.TypeAXFR),
	} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, true)
		f.Add(wire, false)
	}
	f.Fuzz(func(t *testing.T, query []byte, udp bool) {
		srv := dnsproxytest.New(t, append(world(), many(300)...)...)
		p := newTestProxy(t, srv, podConf())
		reply := answerTo(t.Context(), p, query, udp)
		if reply == nil {
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("unpack reply: %v", err)
		}
		if len(query) < 12 || query[2]&0x80 != 0 || [2]byte(reply) != [2]byte(query) || !m.Response {
			t.Fatalf("got %v", m)
		}
		if udp && len(reply) > maxUDPSize {
			t.Fatalf("got %d bytes over UDP", len(reply))
		}
	})
}
