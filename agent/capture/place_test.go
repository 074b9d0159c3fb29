package capture

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/borrownet/borrownet/netstack/flow"
)

// on says where a port of testSpec is captured: l and p for the interfaces.
func on(p *places, port uint16) string {
	for _, at := range p.list() {
		if at.Port == port {
			text := ""
			if at.On[Loopback] {
				text += "l"
			}
			if at.On[Pod] {
				text += "p"
			}
			if at.Why != "" {
				text += "!"
			}
			return text
		}
	}
	return "?"
}

// TestPlacesAreVerified: what a pod's spec suggests is corrected by where connections come.
func TestPlacesAreVerified(t *testing.T) {
	proxy := netip.MustParseAddr("127.0.0.6")
	const meshed, plain = 8080, 9090
	lo, eth := Loopback, Pod
	for _, tt := range []struct {
		name string
		port uint16
		// Packets to the port: the interface, and from whom.
		seen []struct {
			iface uint8
			from  netip.Addr
		}
		want string
	}{
		{"nothing", meshed, nil, "l"},
		{"proxy_passes_on", meshed, []struct {
			iface uint8
			from  netip.Addr
		}{{eth, client4}, {lo, proxy}, {eth, client4}, {eth, client4}, {eth, client4}}, "l"},
		{"goes_past_the_proxy", meshed, []struct {
			iface uint8
			from  netip.Addr
		}{{eth, client4}, {eth, client4}, {eth, client4}}, "lp!"},
		{"proxy_was_late", meshed, []struct {
			iface uint8
			from  netip.Addr
		}{{eth, client4}, {eth, client4}, {eth, client4}, {lo, proxy}}, "l"},
		{"no_proxy", plain, []struct {
			iface uint8
			from  netip.Addr
		}{{eth, client4}, {eth, client4}, {eth, client4}, {eth, client4}}, "p"},
		{"calls_itself", plain, []struct {
			iface uint8
			from  netip.Addr
		}{{lo, pod4}, {lo, netip.MustParseAddr("127.0.0.1")}}, "p"},
		{"proxy_that_the_spec_does_not_show", plain, []struct {
			iface uint8
			from  netip.Addr
		}{{eth, client4}, {lo, client4}}, "l!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlaces(testSpec())
			for i, s := range tt.seen {
				before := fmt.Sprint(p.rule(lo)) + fmt.Sprint(p.rule(eth))
				b := packet(port(s.from, uint16(4000+i)), port(pod4, tt.port), flow.SYN, 1, 0)
				whole, _ := p.rule(s.iface)
				captured, changed := p.look(Packet{Iface: s.iface, Data: b, Wire: len(b)})
				if is := fmt.Sprint(p.rule(lo)) + fmt.Sprint(p.rule(eth)); (is != before) != changed {
					t.Errorf("packet %d: filters changed %v, from %s to %s", i, changed, before, is)
				}
				want := false
				for _, w := range whole {
					want = want || w == tt.port
				}
				if captured != want {
					t.Errorf("packet %d: captured %v, want %v", i, captured, want)
				}
			}
			if got := on(p, tt.port); got != tt.want {
				t.Errorf("captured on %q, want %q", got, tt.want)
			}
		})
	}
}
