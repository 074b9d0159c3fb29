package dnsproxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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

// TestManyInFlight checks that hundreds of queries are under way at once, that a slow one delays no other, and that they
// share sockets: each is one in the pod.
func TestManyInFlight(t *testing.T) {
	for _, rc := range []ResolvConf{plainConf("192.0.2.53"), {Nameservers: plainConf("192.0.2.53").Nameservers, Ndots: 1, UseVC: true}} {
		t.Run(fmt.Sprintf("use-vc-%v", rc.UseVC), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 500
				srv := dnsproxytest.New(t, "*.fast.example.org. 5 IN A 192.0.2.1", "*.slow.example.org. 5 IN A 192.0.2.2")
				srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
					if strings.Contains(q.Msg.Question[0].Name, ".slow.") {
						time.Sleep(time.Second)
					} else {
						time.Sleep(100 * time.Millisecond)
					}
					return []*dns.Msg{reply}
				})
				var dials atomic.Int64
				p := newProxy(Config{Pod: rc, Dial: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
					dials.Add(1)
					return srv.Dial(ctx, network, addr)
				}})
				t.Cleanup(func() { p.Close() })
				var wg sync.WaitGroup
				for i := range n {
					kind, want := "fast", 100*time.Millisecond
					if i%10 == 0 {
						kind, want = "slow", time.Second
					}
					wg.Go(func() {
						start := time.Now()
						got := ask(t, p, question(fmt.Sprintf("n%d.%s.example.org.", i, kind), dns.TypeA), true)
						if took := time.Since(start); len(got.Answer) != 1 || took != want {
							t.Errorf("%s query took %v: %v", kind, took, got)
						}
					})
				}
				wg.Wait()
				if limit := int64(n/laneInFlight + 1); dials.Load() > limit {
					t.Errorf("%d sockets for %d queries, want at most %d", dials.Load(), n, limit)
				}
			})
		})
	}
}

// TestLanesEnd checks that idle sockets are closed, and that none lives for long: its port would become known.
func TestLanesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, "*.example.org. 0 IN A 192.0.2.1")
		var mu sync.Mutex
		dialled := map[string]int{}
		open := 0
		p := newProxy(Config{Pod: plainConf("192.0.2.53"), Dial: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			c, err := srv.Dial(ctx, network, addr)
			mu.Lock()
			defer mu.Unlock()
			dialled[network]++
			open++
			return &countedConn{c, sync.OnceFunc(func() { mu.Lock(); defer mu.Unlock(); open-- })}, err
		}})
		defer p.Close()
		for range 120 {
			ask(t, p, question("a.example.org.", dns.TypeA), true)
			time.Sleep(250 * time.Millisecond)
		}
		mu.Lock()
		if n := dialled["udp"]; n < 3 || n > 4 {
			t.Errorf("%d sockets in 30 s, want one per %v", n, laneLife)
		}
		mu.Unlock()
		time.Sleep(laneLife)
		mu.Lock()
		defer mu.Unlock()
		if open != 0 {
			t.Errorf("%d sockets are open and idle", open)
		}
	})
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// TestStreamReused checks that a nameserver may close a connection that is idle, as RFC 7766 lets it: no query fails.
func TestStreamReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rc := plainConf("192.0.2.53")
		rc.UseVC = true
		srv := dnsproxytest.New(t, "*.example.org. 5 IN A 192.0.2.1")
		var conns []net.Conn
		p := newProxy(Config{Pod: rc, Dial: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			c, err := srv.Dial(ctx, network, addr)
			conns = append(conns, c)
			return c, err
		}})
		defer p.Close()
		for i := range 3 {
			if got := ask(t, p, question(fmt.Sprintf("n%d.example.org.", i), dns.TypeA), true); len(got.Answer) != 1 {
				t.Errorf("query %d: got %v", i, got)
			}
			if i == 1 {
				conns[0].Close()
			}
		}
		if asked := srv.Asked(); len(asked) != 3 || !strings.HasPrefix(asked[0], "tcp ") || len(conns) != 2 {
			t.Errorf("asked %q over %d connections", asked, len(conns))
		}
	})
}

// rawServer is a nameserver that sends bytes of its own choice.
func rawServer(answer func(network string, query []byte) [][]byte) func(context.Context, string, netip.AddrPort) (net.Conn, error) {
	return func(_ context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			buf := make([]byte, dns.MaxMsgSize)
			for {
				n, err := server.Read(buf)
				if err != nil {
					return
				}
				for _, b := range answer(network, buf[:n]) {
					if _, err := server.Write(b); err != nil {
						return
					}
				}
			}
		}()
		return client, nil
	}
}

// TestHostileNameserver checks that whatever a nameserver says that is no answer becomes SERVFAIL in time.
func TestHostileNameserver(t *testing.T) {
	header := func(query []byte) []byte { return append([]byte(nil), query[:12]...) }
	tests := []struct {
		name   string
		answer func(network string, query []byte) [][]byte
	}{
		{"nothing", func(string, []byte) [][]byte { return nil }},
		{"zeros", func(string, []byte) [][]byte { return [][]byte{make([]byte, 100)} }},
		{"one-byte", func(string, []byte) [][]byte { return [][]byte{{1}} }},
		{"the-query-itself", func(_ string, q []byte) [][]byte { return [][]byte{append([]byte(nil), q...)} }},
		{"header-only-NXDOMAIN", func(_ string, q []byte) [][]byte {
			h := header(q)
			h[2], h[3] = 0x81, 0x83
			copy(h[4:], make([]byte, 8))
			return [][]byte{h}
		}},
		{"cut", func(_ string, q []byte) [][]byte {
			r := append([]byte(nil), q[:len(q)-3]...)
			r[2] |= 0x80
			return [][]byte{r}
		}},
		{"wrong-question", func(_ string, q []byte) [][]byte {
			r := append([]byte(nil), q...)
			r[2] |= 0x80
			r[13]++
			return [][]byte{r}
		}},
		{"NXDOMAIN-for-another-id", func(_ string, q []byte) [][]byte {
			r := append([]byte(nil), q...)
			r[0], r[2], r[3] = r[0]+1, 0x81, 0x83
			return [][]byte{r}
		}},
		{"truncated-then-garbage", func(network string, q []byte) [][]byte {
			if network == "tcp" {
				return [][]byte{{0, 5, 1, 2, 3, 4, 5}}
			}
			r := append([]byte(nil), q[:len(q)-11]...) // without the OPT record
			r[2], r[3] = 0x83, 0x80
			binary.BigEndian.PutUint16(r[10:], 0)
			return [][]byte{r}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProxy(Config{Pod: plainConf("192.0.2.53"), Dial: rawServer(tt.answer)})
				defer p.Close()
				start := time.Now()
				got := ask(t, p, question("www.example.org.", dns.TypeA), true)
				if took := time.Since(start); took > defaultTimeout {
					t.Errorf("took %v", took)
				}
				truncated := strings.HasPrefix(tt.name, "truncated") && got.Truncated && got.Rcode == dns.RcodeSuccess
				if got.Rcode != dns.RcodeServerFailure && !truncated || len(got.Answer) != 0 {
					t.Errorf("got %v", got)
				}
			})
		})
	}
}

// FuzzNameserver has a nameserver that says anything, over UDP and TCP: no crash, an answer in time, and nothing about
// names that were not asked for.
func FuzzNameserver(f *testing.F) {
	good := question("www.example.org.", dns.TypeA)
	good.Response = true
	for _, text := range []string{"www.example.org. 5 IN A 192.0.2.1", "www.example.org. 5 IN CNAME b.example.org.", "bank.example.com. 5 IN A 192.0.2.9"} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		good.Answer = append(good.Answer, rr)
		wire, err := good.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, true)
		f.Add(wire, false)
		wire[2] |= 2 // truncated
		f.Add(append([]byte(nil), wire...), false)
	}
	f.Fuzz(func(t *testing.T, reply []byte, honestID bool) {
		synctest.Test(t, func(t *testing.T) {
			p := newProxy(Config{Pod: plainConf("192.0.2.53"), Dial: rawServer(func(network string, q []byte) [][]byte {
				out := bytes.Clone(reply[:min(len(reply), maxUDPSize)])
				if network == "tcp" {
					q = q[min(2, len(q)):]
				}
				if honestID && len(out) > 1 && len(q) > 1 {
					copy(out, q[:2])
				}
				if network == "tcp" {
					out = append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)
				}
				return [][]byte{out}
			})})
			defer p.Close()
			for range 2 { // the second from the cache, if that took it
				start := time.Now()
				got := ask(t, p, question("www.example.org.", dns.TypeA), true)
				if got == nil || time.Since(start) > defaultTimeout {
					t.Fatalf("got %v after %v", got, time.Since(start))
				}
				if strings.Contains(got.String(), "bank.example.com.") {
					t.Fatalf("got %v", got)
				}
			}
		})
	})
}

// TestRotate checks that `options rotate` spreads queries over the nameservers.
func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, "*.example.org. 5 IN A 192.0.2.1")
		rc := plainConf("192.0.2.1", "192.0.2.2")
		rc.Rotate = true
		p := newTestProxy(t, srv, rc)
		for i := range 4 {
			ask(t, p, question(fmt.Sprintf("n%d.example.org.", i), dns.TypeA), true)
		}
		var servers []string
		for _, a := range srv.Asked() {
			servers = append(servers, strings.Fields(a)[1])
		}
		if diff := cmp.Diff([]string{"192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"}, servers); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
	})
}

// TestTimeoutOptions checks what timeout and attempts of the pod's resolv.conf do, within the time that a program waits.
func TestTimeoutOptions(t *testing.T) {
	for _, tt := range []struct {
		name              string
		timeout, attempts int // 0: not given
		servers           int
		took              time.Duration
		asked             int
	}{
		{"defaults", 0, 0, 1, 4 * time.Second, 2},
		{"short", 1, 0, 2, 4 * time.Second, 4},
		{"one-attempt", 1, 1, 2, 2 * time.Second, 2},
		{"long-is-bounded", 30, 5, 1, defaultTimeout, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t)
				srv.Handle(silent)
				rc := plainConf([]string{"192.0.2.1", "192.0.2.2"}[:tt.servers]...)
				rc.Timeout, rc.Attempts = time.Duration(tt.timeout)*time.Second, tt.attempts
				p := newTestProxy(t, srv, rc)
				start := time.Now()
				got := ask(t, p, question("www.example.org.", dns.TypeA), true)
				if took, asked := time.Since(start), len(srv.Asked()); got.Rcode != dns.RcodeServerFailure || took != tt.took || asked != tt.asked {
					t.Errorf("got %s after %v and %d questions, want SERVFAIL after %v and %d", dns.RcodeToString[got.Rcode], took, asked, tt.took, tt.asked)
				}
			})
		})
	}
}

// TestRaces has all of it at once, for the race detector.
func TestRaces(t *testing.T) {
	srv := dnsproxytest.New(t, world()...)
	srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
		switch rand.IntN(20) {
		case 0:
			return says(dns.RcodeServerFailure)(q, reply)
		case 1:
			reply.Truncated = q.Network == "udp"
		}
		return []*dns.Msg{reply}
	})
	p := newProxy(Config{Pod: podConf(), Dial: srv.Dial, DialLaptop: srv.Dial, Local: []string{"example.org."}, Timeout: time.Second})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				name := []string{"orders.", "Orders.other.", "www.example.org.", fmt.Sprintf("n%d-%d.", i, j), "alias."}[rand.IntN(5)]
				if ask(t, p, question(name, dns.TypeA), j%2 == 0) == nil {
					t.Error("no answer")
				}
				if j%50 == 0 {
					p.SetLaptop(plainConf("192.0.2.9"))
					if _, err := p.Explain(t.Context(), name, "AAAA"); err != nil {
						t.Error(err)
					}
				}
				p.Stats()
			}
		})
	}
	wg.Wait()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
