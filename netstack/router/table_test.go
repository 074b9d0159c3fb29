package router

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

func TestExpiry(t *testing.T) {
	out := func(flags uint8) step { return sess(tcpPacket(app, svc, flags), ToTunnel) }
	in := func(flags uint8) step { return tun(tcpPacket(svc, app, flags), ToSession) }
	tests := []struct {
		name  string
		setup []step
		idle  time.Duration
		probe []byte
	}{
		{"udp", []step{sess(udpPacket(app, svc), ToTunnel)}, 180 * time.Second, udpPacket(svc, app)},
		{"echo", []step{sess(icmpPacket("192.0.2.10", "198.51.100.7", 8, 7), ToTunnel)}, 30 * time.Second,
			icmpPacket("198.51.100.7", "192.0.2.10", 0, 7)},
		{"tcp-opening", []step{out(syn)}, 150 * time.Second, tcpPacket(svc, app, synAck)},
		{"tcp-open", []step{out(syn), in(synAck), out(ack)}, 24 * time.Hour, tcpPacket(svc, app, ack)},
		{"tcp-half-closed", []step{out(syn), in(synAck), out(flow.FIN | ack), in(ack)}, 24 * time.Hour, tcpPacket(svc, app, ack)},
		{"tcp-closed", []step{out(syn), in(synAck), out(flow.FIN | ack), in(flow.FIN | ack), out(ack)}, time.Minute,
			tcpPacket(svc, app, ack)},
		{"tcp-reset-by-peer", []step{out(syn), in(synAck), in(flow.RST)}, time.Minute, tcpPacket(svc, app, ack)},
		{"tcp-reset-by-us", []step{out(syn), in(synAck), out(flow.RST)}, time.Minute, tcpPacket(svc, app, ack)},
		{"tcp-refused", []step{out(syn), in(flow.RST | ack)}, time.Minute, tcpPacket(svc, app, ack)},
		{"tcp-ports-again", []step{out(syn), in(synAck), in(flow.RST), out(syn)}, 150 * time.Second, tcpPacket(svc, app, synAck)},
		{"tcp-picked-up", []step{out(ack), in(ack)}, 24 * time.Hour, tcpPacket(svc, app, ack)},
	}
	for _, tt := range tests {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s-late-%v", tt.name, late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newTestRouter()
					for i, s := range tt.setup {
						if got := s.run(r); got != s.want {
							t.Fatalf("step %d: got %v, want %v", i, got, s.want)
						}
					}
					want, flows := ToSession, 1
					idle := tt.idle - time.Nanosecond
					if late {
						want, flows, idle = Drop, 0, tt.idle
					}
					time.Sleep(idle)
					if got := r.FromTunnel(tt.probe); got != want {
						t.Errorf("after %v: got %v, want %v", idle, got, want)
					}
					if s := r.Stats(); s.Flows != flows || s.Opened != 1 || s.Expired != uint64(1-flows) || s.Evicted != 0 {
						t.Errorf("after %v: got %+v, want %d flows", idle, s, flows)
					}
				})
			})
		}
	}
}

// TestSweep checks that flows expire without a packet of their own, whatever their neighbours do.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTestRouter()
		r.FromSession(tcpPacket(app, svc, syn))
		r.FromTunnel(tcpPacket(svc, app, synAck))
		for port := range 100 {
			r.FromSession(udpPacket(app, fmt.Sprintf("198.51.100.7:%d", 1000+port)))
		}
		time.Sleep(100 * time.Second)
		r.FromTunnel(udpPacket("198.51.100.7:1050", app))
		time.Sleep(100 * time.Second)
		if got := r.Stats(); got.Flows != 2 || got.Expired != 99 {
			t.Errorf("got %d flows, %d expired; want 2, 99", got.Flows, got.Expired)
		}
	})
}

func TestFragmentExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTestRouter()
		first, later := udpPacket(app, svc, make([]byte, 16)...), udpPacket(app, svc, make([]byte, 16)...)
		r.FromSession(fragment(first, 1, 0, true))
		time.Sleep(fragmentTimeout - 1)
		if got := r.FromSession(fragment(later, 1, 24, true)); got != ToTunnel {
			t.Errorf("just in time: got %v", got)
		}
		time.Sleep(time.Nanosecond)
		if got := r.FromSession(fragment(later, 1, 48, false)); got != Drop {
			t.Errorf("late: got %v", got)
		}
	})
}

func TestFragmentsBounded(t *testing.T) {
	r := newTestRouter()
	pkt := udpPacket(app, svc, make([]byte, 16)...)
	for id := range 10 * maxFragmented {
		r.FromSession(fragment(pkt, uint16(id), 0, true))
	}
	if got := len(r.fragments[fromSession].fates); got != maxFragmented {
		t.Errorf("got %d fragmented packets, want %d", got, maxFragmented)
	}
	last := uint16(10*maxFragmented - 1)
	if got := r.FromSession(fragment(pkt, last, 24, false)); got != ToTunnel {
		t.Errorf("latest packet: got %v", got)
	}
	if got := r.FromSession(fragment(pkt, last-maxFragmented, 24, false)); got != Drop {
		t.Errorf("forgotten packet: got %v", got)
	}
}

func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		r := New(Config{
			Session:  []netip.Addr{addr("192.0.2.10")},
			MaxFlows: 3,
			Logger:   slog.New(slog.NewTextHandler(&log, nil)),
		})
		peer := func(i int) string { return fmt.Sprintf("198.51.100.7:%d", 1000+i) }
		open := func(i int) bool { return r.FromTunnel(udpPacket(peer(i), app)) == ToSession }

		r.FromSession(tcpPacket(app, svc, syn))
		r.FromTunnel(tcpPacket(svc, app, synAck)) // the longest idle, but an open TCP flow goes last
		time.Sleep(time.Second)
		for i := range 2 {
			r.FromSession(udpPacket(app, peer(i)))
			time.Sleep(time.Second)
		}
		if !open(0) { // now flow 1 is the longest idle one
			t.Fatal("flow 0 is closed")
		}
		r.FromSession(udpPacket(app, peer(2)))
		if !open(0) || open(1) || !open(2) {
			t.Errorf("open: got %v %v %v, want true false true", open(0), open(1), open(2))
		}
		if got := r.FromTunnel(tcpPacket(svc, app, ack)); got != ToSession {
			t.Errorf("open TCP flow: got %v", got)
		}
		if s := r.Stats(); s.Flows != 3 || s.Evicted != 1 || s.Opened != 4 || s.Expired != 0 {
			t.Errorf("got %+v, want 3 flows, 1 evicted, 4 opened", s)
		}

		// With nothing else in the table, open TCP flows go as well.
		for i := range 4 {
			r.FromSession(tcpPacket(app, peer(i), syn))
			r.FromTunnel(tcpPacket(peer(i), app, synAck))
			time.Sleep(time.Second)
		}
		if got := r.FromTunnel(tcpPacket(svc, app, ack)); got != Drop {
			t.Errorf("evicted TCP flow: got %v", got)
		}
		if s := r.Stats(); s.Flows != 3 || s.Evicted != 5 {
			t.Errorf("got %+v, want 3 flows, 5 evicted", s)
		}
		if n := strings.Count(log.String(), "flow table full"); n != 1 {
			t.Errorf("got %d warnings, want 1", n)
		}
	})
}
