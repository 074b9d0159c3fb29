package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/borrownet/borrownet/netstack/flow"
)

// FuzzFromTunnel checks that no packet passes from the tunnel while nothing is open, and that with flows open only
// packets pass that a plain reading says are theirs.
func FuzzFromTunnel(f *testing.F) {
	for _, tt := range verdictTests {
		for _, s := range tt.steps {
			if s.from == fromTunnel {
				f.Add(s.pkt)
			}
		}
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		r := newTestRouter()
		if got := r.FromTunnel(pkt); got != Drop {
			t.Fatalf("nothing open: got %v", got)
		}
		r.FromSession(udpPacket(app, svc))
		r.FromSession(tcpPacket(app6, svc6, syn))
		r.FromStack(tcpPacket(client, agent, syn))
		r.FromContainer(udpPacket(inside, svc))
		got := r.FromTunnel(pkt)
		if got == Drop {
			return
		}
		p, err := flow.Parse(pkt)
		if err != nil || p.Fragment {
			t.Fatalf("%v: passed to %v", err, got)
		}
		if want := owners[reply(p)]; got != want {
			t.Fatalf("%v: got %v, want %v", p.Flow, got, want)
		}
	})
}

// owners are the flows that FuzzFromTunnel opens.
var owners = map[flow.Flow]Verdict{
	{Proto: flow.UDP, Src: ap(app), Dst: ap(svc)}:      ToSession,
	{Proto: flow.TCP, Src: ap(app6), Dst: ap(svc6)}:    ToSession,
	{Proto: flow.TCP, Src: ap(client), Dst: ap(agent)}: ToStack,
	{Proto: flow.UDP, Src: ap(inside), Dst: ap(svc)}:   ToContainer,
}

// reply returns the flow that p answers, or that it is an error about.
func reply(p flow.Packet) flow.Flow {
	if p.Inner != nil {
		return *p.Inner
	}
	return p.Flow.Reverse()
}

// TestRandomTraffic plays a session, a netstack and a hostile agent that all draw from few addresses and ports, so that
// they often meet, and keeps a plain set of what is open beside the router.
func TestRandomTraffic(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	hosts := []string{
		"192.0.2.10", "192.0.2.11", "198.51.100.7", "198.51.100.8", "203.0.113.53", "127.0.0.1", "127.0.0.53",
		"192.0.0.1", "192.0.0.2", "192.0.0.3", "0.0.0.0", "224.0.0.1", "255.255.255.255", "169.254.1.1",
	}
	hosts6 := []string{"2001:db8::10", "2001:db8:7::7", "2001:db8:53::53", "::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1"}
	random := func() []byte {
		from := hosts
		if rng.IntN(3) == 0 {
			from = hosts6
		}
		src := netip.AddrPortFrom(addr(from[rng.IntN(len(from))]), []uint16{53, 80, 443}[rng.IntN(3)]).String()
		dst := netip.AddrPortFrom(addr(from[rng.IntN(len(from))]), []uint16{53, 80, 443}[rng.IntN(3)]).String()
		switch rng.IntN(4) {
		case 0:
			return tcpPacket(src, dst, uint8(rng.IntN(64)))
		case 1:
			return icmpPacket(ap(src).Addr().String(), ap(dst).Addr().String(), []byte{0, 3, 5, 8, 1, 128, 129, 137}[rng.IntN(8)],
				uint16(rng.IntN(3)), udpPacket(dst, src)...)
		}
		return udpPacket(src, dst)
	}
	r := newTestRouter()
	open := make(map[flow.Flow]Verdict)
	passed := 0
	for range 400_000 {
		pkt := random()
		p, err := flow.Parse(pkt)
		if err != nil {
			t.Fatal(err)
		}
		switch rng.IntN(3) {
		case 0:
			if r.FromSession(pkt) == ToTunnel && p.Inner == nil {
				open[p.Flow] = ToSession
			}
		case 1:
			if r.FromStack(pkt) == ToTunnel && p.Inner == nil {
				open[p.Flow] = ToStack
			}
		case 2:
			got := r.FromTunnel(pkt)
			if got == Drop {
				continue
			}
			passed++
			if want := open[reply(p)]; got != want {
				t.Fatalf("%v flags %#x inner %v: got %v, want %v", p.Flow, p.TCPFlags, p.Inner, got, want)
			}
			if p.Flow.Proto == flow.TCP && p.TCPFlags&(flow.SYN|flow.ACK) == flow.SYN {
				t.Fatalf("%v: SYN passed", p.Flow)
			}
			if src := p.Flow.Src.Addr(); src.IsLoopback() || p.Flow.Dst.Addr().IsLoopback() {
				t.Fatalf("%v: loopback passed", p.Flow)
			}
		}
	}
	if passed < 1000 {
		t.Errorf("only %d packets passed: the test tests nothing", passed)
	}
}

func TestConcurrent(t *testing.T) {
	r := New(Config{Session: []netip.Addr{addr("192.0.2.10")}, MaxFlows: 64})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := range 5000 {
				peer := fmt.Sprintf("198.51.100.7:%d", 1+n%200)
				switch i {
				case 0:
					r.FromSession(udpPacket(app, peer))
				case 1:
					r.FromTunnel(udpPacket(peer, app))
				case 2:
					r.FromSession(fragment(udpPacket(app, peer), uint16(n), 0, true))
					r.Stats()
				}
			}
		})
	}
	wg.Wait()
	s := r.Stats()
	if s.Flows > 64 || s.ToTunnel != 10_000 || s.ToSession+s.Drops["tunnel/unsolicited"] != 5000 {
		t.Errorf("got %+v", s)
	}
	if got := s.Opened - s.Expired - s.Evicted; got != uint64(s.Flows) {
		t.Errorf("opened - expired - evicted: got %d, want %d", got, s.Flows)
	}
}

func TestNoAllocations(t *testing.T) {
	r := newTestRouter()
	out, in := tcpPacket(app, svc, ack), tcpPacket(svc, app, ack)
	if n := testing.AllocsPerRun(100, func() { r.FromSession(out); r.FromTunnel(in) }); n != 0 {
		t.Errorf("got %v allocations per round trip, want 0", n)
	}
}

func BenchmarkPacket(b *testing.B) {
	b.Run("session", func(b *testing.B) {
		r := newTestRouter()
		pkt := tcpPacket(app, svc, ack)
		for b.Loop() {
			r.FromSession(pkt)
		}
	})
	b.Run("tunnel", func(b *testing.B) {
		r := newTestRouter()
		r.FromSession(tcpPacket(app6, svc6, ack))
		pkt := tcpPacket(svc6, app6, ack)
		for b.Loop() {
			r.FromTunnel(pkt)
		}
	})
	b.Run("tunnel-among-50000-flows", func(b *testing.B) {
		r := newTestRouter()
		pkts := make([][]byte, 50_000)
		for i := range pkts {
			peer := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 12)}), uint16(i&0xfff+1)).String()
			r.FromSession(udpPacket(app, peer))
			pkts[i] = udpPacket(peer, app)
		}
		i := 0
		for b.Loop() {
			r.FromTunnel(pkts[i%len(pkts)])
			i += 7919
		}
	})
	b.Run("new-flow-in-full-table", func(b *testing.B) {
		r := newTestRouter()
		pkts := make([][]byte, 100_000)
		for i := range pkts {
			peer := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 12)}), uint16(i&0xfff+1)).String()
			pkts[i] = udpPacket(app, peer)
			r.FromSession(pkts[i])
		}
		i := 0
		for b.Loop() {
			r.FromSession(pkts[i%len(pkts)])
			i++
		}
	})
	b.Run("both-ways-in-parallel", func(b *testing.B) {
		r := newTestRouter()
		out, in := tcpPacket(app, svc, ack), tcpPacket(svc, app, ack)
		r.FromSession(out)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if i%2 == 0 {
					r.FromSession(out)
				} else {
					r.FromTunnel(in)
				}
			}
		})
	})
}
