package router

import (
	"net/netip"

	"github.com/borrownet/borrownet/netstack/flow"
)

const dnsPort = 53

// ICMP types that the router knows (RFC 792, RFC 4443).
const (
	echoReply      = 0
	unreachable    = 3
	echoRequest    = 8
	timeExceeded   = 11
	badParameter   = 12
	echoRequest6   = 128
	echoReply6     = 129
	lastKnownErr6  = 4 // unreachable, packet too big, time exceeded, parameter problem
	firstKnownErr6 = 1
)

// kind is what a packet is, as far as routing goes.
type kind uint8

const (
	kindOther   kind = iota // no TCP, UDP or ICMP
	kindFlow                // TCP, UDP
	kindRequest             // ICMP echo
	kindReply               // ICMP echo
	kindError               // ICMP about a flow
	kindICMP                // other ICMP, redirects among it
)

func (p *packet) kind() kind {
	is4 := p.src().Is4()
	switch p.Flow.Proto {
	case flow.TCP, flow.UDP:
		return kindFlow
	case flow.ICMP:
		if !is4 {
			return kindOther
		}
		switch p.ICMPType {
		case echoRequest:
			return kindRequest
		case echoReply:
			return kindReply
		case unreachable, timeExceeded, badParameter:
			if p.Inner != nil {
				return kindError
			}
		}
		return kindICMP
	case flow.ICMPv6:
		switch {
		case is4:
			return kindOther
		case p.ICMPType == echoRequest6:
			return kindRequest
		case p.ICMPType == echoReply6:
			return kindReply
		case p.ICMPType >= firstKnownErr6 && p.ICMPType <= lastKnownErr6 && p.Inner != nil:
			return kindError
		}
		return kindICMP
	}
	return kindOther
}

// outward is the flow of a packet from this side, inward that of a packet towards it.
func (p *packet) outward() key { return keyOf(p.Flow.Proto, p.Flow.Src, p.Flow.Dst) }
func (p *packet) inward() key  { return keyOf(p.Flow.Proto, p.Flow.Dst, p.Flow.Src) }

// sessionPacket decides about a packet of a program.
func (r *Router) sessionPacket(p *packet) (Verdict, reason) {
	src, dst := p.src(), p.dst()
	what := p.kind()
	if src.IsLoopback() || dst.IsLoopback() {
		switch {
		case src.Is4() && src.IsLoopback() && dst.IsLoopback():
			return ToStack, 0
		case dst.Is4() && r.isSession(src) && what != kindOther && r.table.answer(p.outward(), p.TCPFlags, p.now):
			return ToStack, 0
		case r.isSession(src):
			return Drop, reasonLoopback
		}
		return Drop, reasonSource
	}
	switch {
	case !r.isSession(src):
		return Drop, reasonSource
	case what == kindFlow && p.Flow.Dst.Port() == dnsPort && r.isNameserver(dst):
		return ToStack, 0
	}
	if why, ok := r.reachable(dst); !ok {
		return Drop, why
	}
	if r.isLocal(dst) {
		if what != kindFlow {
			return Drop, reasonScope // echoes of the laptop's network are not the netstack's to answer
		}
		return ToStack, 0
	}
	if r.terminate && p.Flow.Proto == flow.TCP && what == kindFlow {
		r.table.answer(p.outward(), p.TCPFlags, p.now) // the netstack's packets open the flow, these keep it
		return ToStack, 0
	}
	switch what {
	case kindFlow, kindRequest:
		switch r.open(p, p.outward(), session) {
		case session:
			return ToTunnel, 0
		case stackward:
			return ToStack, 0
		}
		return Drop, reasonConflict
	case kindReply:
		if r.table.answer(p.outward(), 0, p.now) {
			return ToStack, 0
		}
	case kindError:
		// About a packet that came in: where that came from is where its sender is told.
		if p.Inner.Dst.Addr() != src || p.Inner.Src.Addr() != dst {
			return Drop, reasonICMP
		}
		switch r.table.find(keyOf(p.Inner.Proto, p.Inner.Dst, p.Inner.Src), p.now) {
		case session:
			return ToTunnel, 0
		case stackward:
			return ToStack, 0
		}
		if r.isNameserver(dst) && p.Inner.Src.Port() == dnsPort {
			return ToStack, 0
		}
	case kindOther:
		return Drop, reasonProtocol
	}
	return Drop, reasonICMP
}

// reachable reports whether packets may go to dst through the tunnel, and if not, why. IPv4 link-local unicast may:
// metadata services and node-local DNS live there, and what of it the pod forbids is the agent's to say.
func (r *Router) reachable(dst netip.Addr) (reason, bool) {
	switch {
	case dst.IsLoopback():
		return reasonLoopback, false
	case isControl(dst), dst == r.client, dst == r.agent:
		return reasonControl, false
	case !isHost(dst), dst.Is6() && dst.IsLinkLocalUnicast():
		return reasonScope, false
	case r.isSession(dst):
		return reasonDestination, false
	}
	return 0, true
}

// isControl reports whether a is in 192.0.0.0/29, which the two netstacks have for themselves.
func isControl(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] == 192 && b[1] == 0 && b[2] == 0 && b[3] < 8
}

// isHost reports whether a can be the address of one host: not "this network", multicast, broadcast or an IPv4 address
// in IPv6 clothes. 240.0.0.0/4 can: Istio gives its addresses to ServiceEntries.
func isHost(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return b[0] != 0 && !a.IsMulticast() && b != [4]byte{255, 255, 255, 255}
	}
	return !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6()
}

// stackPacket decides about a packet of the client's netstack.
func (r *Router) stackPacket(p *packet) (Verdict, reason) {
	src, dst := p.src(), p.dst()
	switch {
	case src == r.client:
		return r.stackToTunnel(p)
	case src.Is4() && src.IsLoopback() && dst.Is4() && dst.IsLoopback():
		return ToSession, 0
	case r.isSession(dst):
		return r.stackToSession(p)
	case dst.IsLoopback():
		return Drop, reasonLoopback
	case r.isSession(src):
		// The netstack has no IPv6 address of its own; it borrows the session's to reach IPv6 nameservers.
		return r.stackToTunnel(p)
	}
	return Drop, reasonSource
}

func (r *Router) stackToTunnel(p *packet) (Verdict, reason) {
	src, dst := p.src(), p.dst()
	// The pod's own address is a destination too: that of `forward` to the pod itself.
	toAgent := src == r.client && (dst == r.agent || dst == r.remote)
	toPod := src == r.client && r.isSession(dst)
	if why, ok := r.reachable(dst); !ok && !toAgent && !toPod {
		return Drop, why
	}
	switch p.kind() {
	case kindFlow, kindRequest:
		if r.open(p, p.outward(), stack) == stack {
			return ToTunnel, 0
		}
		return Drop, reasonConflict
	case kindError:
		if p.Inner.Dst.Addr() == src && r.table.find(keyOf(p.Inner.Proto, p.Inner.Dst, p.Inner.Src), p.now) == stack {
			return ToTunnel, 0
		}
	case kindOther:
		return Drop, reasonProtocol
	}
	return Drop, reasonICMP
}

func (r *Router) stackToSession(p *packet) (Verdict, reason) {
	src := p.src()
	switch {
	case r.stackToContainer(p):
		return ToContainer, 0
	case !isHost(src), isControl(src), r.isSession(src), src.Is6() && src.IsLoopback():
		return Drop, reasonSource
	}
	switch p.kind() {
	case kindFlow:
		if p.Flow.Src.Port() == dnsPort && r.isNameserver(src) {
			return ToSession, 0
		}
		fallthrough
	case kindRequest:
		switch r.open(p, p.inward(), stackward) {
		case stackward:
			return ToSession, 0
		case aside:
			return ToContainer, 0
		}
		return Drop, reasonConflict
	case kindError:
		if p.Inner.Src.Addr() == p.dst() {
			return ToSession, 0
		}
	case kindOther:
		return Drop, reasonProtocol
	}
	return Drop, reasonICMP
}

// tunnelPacket decides about a packet of the agent, which may be hostile: it passes if it answers a flow that is open
// from here, and nothing else does.
func (r *Router) tunnelPacket(p *packet) (Verdict, reason) {
	src, dst := p.src(), p.dst()
	what := p.kind()
	switch {
	case src.IsLoopback(), dst.IsLoopback():
		return Drop, reasonLoopback
	case dst != r.client && !r.isSession(dst):
		return Drop, reasonDestination
	case src == r.client:
		return Drop, reasonSource
	case r.isSession(src) && dst != r.client:
		return Drop, reasonSource
	case isControl(src) && src != r.agent && (src != r.remote || dst != r.client):
		return Drop, reasonControl
	case src == r.agent && dst != r.client && what != kindError:
		return Drop, reasonControl
	case !isHost(src), src.Is6() && src.IsLinkLocalUnicast():
		return Drop, reasonScope
	}
	switch what {
	case kindFlow:
		if p.Flow.Proto == flow.TCP && p.TCPFlags&(flow.SYN|flow.ACK) == flow.SYN {
			return Drop, reasonSYN
		}
		return r.toOwner(r.table.receive(p.inward(), p.TCPFlags, p.now))
	case kindReply:
		return r.toOwner(r.table.receive(p.inward(), 0, p.now))
	case kindError:
		if p.Inner.Src.Addr() != dst {
			return Drop, reasonICMP
		}
		return r.toOwner(r.table.find(keyOf(p.Inner.Proto, p.Inner.Src, p.Inner.Dst), p.now))
	case kindOther:
		return Drop, reasonProtocol
	}
	return Drop, reasonICMP
}

func (r *Router) toOwner(who owner) (Verdict, reason) {
	switch who {
	case session:
		return ToSession, 0
	case container:
		return ToContainer, 0
	case stack:
		return ToStack, 0
	}
	return Drop, reasonUnsolicited
}
