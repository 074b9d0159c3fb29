package router

// Programs in containers have the session's addresses, in a network namespace of
// their own that the session's programs are not in. So which of the two a packet
// goes to is a matter of who opened its flow. Their loopback is the containers'
// alone and never gets here.

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
		return r.containerOpens(p, container, ToTunnel)
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
		return r.resolver.IsValid() && p.src() == r.resolver && p.Flow.Src.Port() == dnsPort
	case kindError:
		if p.Inner.Src.Addr() != p.dst() {
			return false
		}
		who := r.table.find(keyOf(p.Inner.Proto, p.Inner.Src, p.Inner.Dst), p.now)
		return who == container || who == aside
	}
	return false
}
