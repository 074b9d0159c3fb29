package capture

import (
	"slices"
	"sync"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Place says where a port is captured now.
type Place struct {
	Port uint16
	On   [interfaces]bool
	Why  string // it is not where Spec has it
}

// Why a port is captured elsewhere than the pod's spec suggests.
const (
	whyLoopback = "the pod's spec shows no proxy, but its connections come by the loopback"
	whyPod      = "connections reach the pod's interface, and nothing comes from its proxy"
)

// enough connections to a port on the pod's interface, of which its proxy passes nothing on, mean that they go past it.
const enough = 3

// places verifies by what is seen that ports are captured where their flows are plain. On the interface where a port is
// not captured it is watched: the filter lets those packets pass with which a connection begins.
//
// Behind a proxy both interfaces show connections, those on the pod's encrypted. So once the loopback shows a port's, that
// is where it is captured. A port that is to be captured behind a proxy that passes nothing on, while connections come,
// is captured on both.
type places struct {
	spec Spec

	mu    sync.Mutex
	ports []*placed // guarded by mu
}

type placed struct {
	Place
	behind bool // a proxy is to be before it
	seen   bool // the loopback shows it
	begun  int  // connections on the pod's interface
}

func newPlaces(spec Spec) *places {
	p := &places{spec: spec}
	for iface, list := range [interfaces][]uint16{Loopback: spec.Loopback, Pod: spec.Pod} {
		for _, port := range list {
			at := &placed{Place: Place{Port: port}, behind: uint8(iface) == Loopback}
			at.On[iface] = true
			p.ports = append(p.ports, at)
		}
	}
	return p
}

// list returns where each port is captured.
func (p *places) list() []Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Place
	for _, at := range p.ports {
		out = append(out, at.Place)
	}
	return out
}

// rule returns the ports that an interface's filter lets pass, whole or to watch.
func (p *places) rule(iface uint8) (whole, watched []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.ports {
		switch {
		case at.On[iface]:
			whole = append(whole, at.Port)
		case iface == Loopback || at.behind && !at.seen:
			watched = append(watched, at.Port)
		}
	}
	return whole, watched
}

// look judges a packet: whether it belongs to what is captured, and whether the filters must be made anew.
func (p *places) look(pkt Packet) (captured, changed bool) {
	s, ok := parse(pkt, p.spec.server)
	if !ok {
		return true, false // for who counts what makes no sense
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.ports, func(at *placed) bool { return at.Port == s.server.Port() })
	at := p.ports[i] // parse knows no others
	switch before := at.Place; {
	case pkt.Iface == Loopback && at.behind:
		first := !at.seen
		at.seen, at.On[Pod], at.Why = true, false, ""
		return true, first
	case pkt.Iface == Loopback && !at.On[Loopback]:
		if s.opens() && !p.spec.own(Loopback, s.client.Addr()) {
			at.On, at.Why = [interfaces]bool{Loopback: true}, whyLoopback
		}
		return false, at.Place != before
	case pkt.Iface == Pod && !at.On[Pod]:
		if s.flags&(flow.SYN|flow.ACK) == flow.SYN && at.behind && !at.seen {
			if at.begun++; at.begun >= enough {
				at.On[Pod], at.Why = true, whyPod
			}
		}
		return false, at.Place != before
	}
	return true, false
}
