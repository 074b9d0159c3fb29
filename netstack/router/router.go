// Package router decides where each IP packet on the client's side of the tunnel goes: to the tunnel, to the
// client's own netstack, to the session's network namespace, to a container that has joined the session, or nowhere.
//
// It is the laptop's packet filter towards the agent, which is not trusted: from the tunnel only replies to flows
// that were opened on this side pass. A Router starts no goroutine, does no I/O and never blocks; its methods are
// safe for concurrent use and do not keep the packet.
package router

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Verdict says where a packet goes.
type Verdict uint8

// The verdicts. Drop is the zero value, so that a forgotten case is a closed door.
const (
	Drop        Verdict = iota // the packet is discarded, counted by its Reason
	ToTunnel                   // through WireGuard to the agent
	ToStack                    // into the client's netstack
	ToSession                  // into the TUN of the session's network namespace
	ToContainer                // into the TUN of a container
)

// String returns the name of the verdict.
func (v Verdict) String() string {
	switch v {
	case Drop:
		return "drop"
	case ToTunnel:
		return "tunnel"
	case ToStack:
		return "stack"
	case ToSession:
		return "session"
	case ToContainer:
		return "container"
	}
	return "invalid"
}

// Port is one of the three sides that packets are written to: TUN, client netstack, tunnel. Each buffer holds one
// packet from offset on. It is the shape of wireguard-go's tun.Device.
type Port interface {
	Write(bufs [][]byte, offset int) (int, error)
}

// Config says which addresses belong to whom.
type Config struct {
	// Session holds the addresses of the session, which are those of the pod.
	Session []netip.Addr
	// Client is the address of the client's netstack, Agent the control address of the agent.
	Client, Agent netip.Addr
	// Resolver is where programs in containers ask for names: port 53 of it is the client's netstack. The zero Addr is
	// nobody.
	Resolver netip.Addr
	// Remote stands for the pod's loopback; only the client's netstack reaches it. The zero Addr is nobody.
	Remote netip.Addr
	// Nameservers are the laptop's: port 53 there is answered by the client's netstack. See SetNameservers.
	Nameservers []netip.Addr
	// Local are destinations that the client's netstack gets instead of the tunnel: those of the laptop's own network.
	Local []netip.Prefix
	// Terminate gives the client's netstack the TCP flows of programs that would go through the tunnel: somebody there
	// looks into them.
	Terminate bool
	// MaxFlows bounds the flow table. Zero means 65536.
	MaxFlows int
	// Logger may be nil: nothing is logged. There are no per-packet logs, see Stats.
	Logger *slog.Logger
}

// Router holds the flow table of one session.
type Router struct {
	session       atomic.Pointer[[]netip.Addr]
	client, agent netip.Addr
	remote        netip.Addr
	resolver      netip.Addr
	nameservers   atomic.Pointer[[]netip.Addr]
	local         []netip.Prefix
	terminate     bool
	log           *slog.Logger
	start         time.Time

	table     *table
	fragments [numSides]fragments
	count     counters
	full      sync.Once // for saying that the table is full
}

// New returns a Router for the addresses in cfg.
func New(cfg Config) *Router {
	r := &Router{
		client:   cfg.Client.Unmap(),
		agent:    cfg.Agent.Unmap(),
		remote:   cfg.Remote,
		resolver: cfg.Resolver,
		local:    slices.Clone(cfg.Local),
		log:      cfg.Logger,
		start:    time.Now(),

		terminate: cfg.Terminate,
	}
	r.SetSession(cfg.Session)
	r.SetNameservers(cfg.Nameservers)
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	limit := cfg.MaxFlows
	if limit <= 0 {
		limit = defaultMaxFlows
	}
	r.table = newTable(limit)
	return r
}

// SetSession replaces Config.Session: the session has moved to another pod. See Forget.
func (r *Router) SetSession(addrs []netip.Addr) {
	addrs = plain(addrs)
	r.session.Store(&addrs)
}

// Forget drops every flow with the tunnel, as when there is no other side any more, and returns the TCP flows that programs had opened, as
// seen from the laptop.
func (r *Router) Forget() []flow.Flow { return r.table.clear() }

// SetNameservers replaces Config.Nameservers.
func (r *Router) SetNameservers(addrs []netip.Addr) {
	addrs = plain(addrs)
	r.nameservers.Store(&addrs)
}

// plain returns addrs as they are in packets.
func plain(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		out[i] = a.Unmap().WithZone("")
	}
	return out
}

// now is the router's clock.
func (r *Router) now() time.Duration { return time.Since(r.start) }

// FromSession returns the verdict about a packet read from the session's TUN: ToTunnel, ToStack or Drop.
func (r *Router) FromSession(pkt []byte) Verdict { return r.route(pkt, fromSession) }

// FromStack returns the verdict about a packet read from the client's netstack: ToTunnel, ToSession, ToContainer or Drop.
func (r *Router) FromStack(pkt []byte) Verdict { return r.route(pkt, fromStack) }

// FromTunnel returns the verdict about a packet that the agent sent: ToSession, ToContainer, ToStack or Drop.
func (r *Router) FromTunnel(pkt []byte) Verdict { return r.route(pkt, fromTunnel) }

// packet is a packet on its way through the router.
type packet struct {
	flow.Packet
	now time.Duration
}

func (p *packet) src() netip.Addr { return p.Flow.Src.Addr() }
func (p *packet) dst() netip.Addr { return p.Flow.Dst.Addr() }

// route finds the verdict about pkt and counts it.
func (r *Router) route(pkt []byte, from side) Verdict {
	parsed, err := flow.Parse(pkt)
	if err != nil {
		return r.drop(from, reasonMalformed)
	}
	p := packet{Packet: parsed, now: r.now()}
	part := pieceOf(pkt)
	if from == fromTunnel && !part.plain && isTransport(byte(p.Flow.Proto)) {
		return r.drop(from, reasonOptions) // source routes among them; the agent's netstack sends none
	}
	w := whole{proto: p.Flow.Proto, id: part.id, src: p.src(), dst: p.dst()}
	if p.Fragment {
		v := r.fragments[from].follow(w, part, p.now)
		if v == Drop {
			return r.drop(from, reasonFragment)
		}
		r.count.verdicts[v].Add(1)
		return v
	}
	v, why := r.decide(&p, from)
	if v == Drop {
		return r.drop(from, why)
	}
	if part.more {
		r.fragments[from].pass(w, part, v, p.now)
	}
	r.count.verdicts[v].Add(1)
	return v
}

// decide returns the verdict about a whole packet or a first fragment.
func (r *Router) decide(p *packet, from side) (Verdict, reason) {
	switch from {
	case fromSession:
		return r.sessionPacket(p)
	case fromStack:
		return r.stackPacket(p)
	case fromContainer:
		return r.containerPacket(p)
	}
	return r.tunnelPacket(p)
}

func (r *Router) drop(from side, why reason) Verdict {
	r.count.drops[from][why].Add(1)
	return Drop
}

// open notes a packet of a flow towards the tunnel or the session, opening it if need be.
func (r *Router) open(p *packet, k key, who owner) owner {
	got, evicted := r.table.send(k, who, p.TCPFlags, p.now)
	if evicted {
		r.full.Do(func() { r.log.Warn("flow table full, idle flows are dropped", "flows", r.table.max) })
	}
	return got
}

func (r *Router) isSession(a netip.Addr) bool    { return slices.Contains(*r.session.Load(), a) }
func (r *Router) isNameserver(a netip.Addr) bool { return slices.Contains(*r.nameservers.Load(), a) }
func (r *Router) isLocal(a netip.Addr) bool {
	return slices.ContainsFunc(r.local, func(p netip.Prefix) bool { return p.Contains(a) })
}
