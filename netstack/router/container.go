package router

import (
	"net/netip"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Programs in containers have the session's addresses, in a network namespace of
// their own that the session's programs are not in. So which of the two a packet
// goes to is a matter of who opened its flow. Their loopback is the containers'
// alone and never gets here.

// Expect says where a TCP flow goes that the client's netstack is about to open from
// client to server, which is an address of the session: ToSession or ToContainer. It
// reports whether it may: not if client and server talk already in a flow that a
// program has opened.
func (r *Router) Expect(client, server netip.AddrPort, to Verdict) bool {
	who := stackward
	if to == ToContainer {
		who = aside
	}
	return r.table.aim(keyOf(flow.TCP, server, client), who, r.now())
}

// FromContainer returns the verdict about a packet read from the TUN of a
// container: ToTunnel, ToStack or Drop.
func (r *Router) FromContainer(pkt []byte) Verdict { return r.route(pkt, fromContainer) }

// containerPacket decides about a packet of a program in a container.
func (r *Router) containerPacket(p *packet) (Verdict, reason) {
	src, dst := p.src(), p.dst()
	what := p.kind()
	switch {
	case src.IsLoopback(), dst.IsLoopback():
		return Drop, reasonLoopback
	case !r.isSession(src):
		return Drop, reasonSource
	case what == kindFlow && r.resolver.IsValid() && dst == r.resolver && p.Flow.Dst.Port() == dnsPort:
		return ToStack, 0
	}
	if why, ok := r.reachable(dst); !ok {
		if what == kindFlow && r.table.find(p.outward(), p.now) == aside {
			return r.containerOpens(p, aside, ToStack)
		}
		return Drop, why
	}
	if r.isLocal(dst) {
		if what != kindFlow {
			return Drop, reasonScope
		}
		return r.containerOpens(p, aside, ToStack)
	}
	switch what {
	case kindFlow, kindRequest:
		switch r.open(p, p.outward(), container) {
		case container:
			return ToTunnel, 0
		case aside: // it answers what the netstack has opened
			return r.containerOpens(p, aside, ToStack)
		}
		return Drop, reasonConflict
	case kindError:
		// About a packet that came in: where that came from is where its sender is told.
		if p.Inner.Dst.Addr() == src && p.Inner.Src.Addr() == dst &&
			r.table.find(keyOf(p.Inner.Proto, p.Inner.Dst, p.Inner.Src), p.now) == container {
			return ToTunnel, 0
		}
	case kindOther:
		return Drop, reasonProtocol
	}
	return Drop, reasonICMP
}

// containerOpens notes a packet of a flow of who's.
func (r *Router) containerOpens(p *packet, who owner, to Verdict) (Verdict, reason) {
	if r.open(p, p.outward(), who) != who {
		return Drop, reasonConflict
	}
	return to, 0
}

// stackToContainer reports whether a packet of the client's netstack to one of
// the session's addresses answers a container.
func (r *Router) stackToContainer(p *packet) bool {
	switch p.kind() {
	case kindFlow:
		if r.resolver.IsValid() && p.src() == r.resolver && p.Flow.Src.Port() == dnsPort {
			return true
		}
		// From an address that is nobody's: Expect has opened that flow, or there is none.
		return isControl(p.src()) && r.table.find(p.inward(), p.now) == aside && r.open(p, p.inward(), stackward) == aside
	case kindError:
		if p.Inner.Src.Addr() != p.dst() {
			return false
		}
		who := r.table.find(keyOf(p.Inner.Proto, p.Inner.Src, p.Inner.Dst), p.now)
		return who == container || who == aside
	}
	return false
}
