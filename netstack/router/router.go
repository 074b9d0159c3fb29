// Package router decides where each IP packet on the client's side of the tunnel goes: to the tunnel, to the
// client's own netstack, to the session's network namespace, or nowhere.
//
// It is the laptop's packet filter towards the agent, which is not trusted: from the tunnel only replies to flows
// that were opened on this side pass. A Router starts no goroutine, does no I/O and never blocks; its methods are
// safe for concurrent use and do not keep the packet.
package router

import (
	"log/slog"
	"net/netip"
)

// Verdict says where a packet goes.
type Verdict uint8

// The verdicts. Drop is the zero value, so that a forgotten case is a closed door.
const (
	Drop      Verdict = iota // the packet is discarded, counted by its Reason
	ToTunnel                 // through WireGuard to the agent
	ToStack                  // into the client's netstack
	ToSession                // into the TUN of the session's network namespace
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
	// Nameservers are those of the laptop's resolv.conf: port 53 there is answered by the client's netstack.
	Nameservers []netip.Addr
	// MaxFlows bounds the flow table. Zero means 65536.
	MaxFlows int
	// Logger may be nil: nothing is logged. There are no per-packet logs, see Stats.
	Logger *slog.Logger
}

// Router holds the flow table of one session.
type Router struct {
	cfg Config
}

// New returns a Router for the addresses in cfg.
func New(cfg Config) *Router { return &Router{cfg: cfg} }

// FromSession returns the verdict about a packet read from the session's TUN: ToTunnel, ToStack or Drop.
func (r *Router) FromSession(pkt []byte) Verdict { return Drop }

// FromStack returns the verdict about a packet read from the client's netstack: ToTunnel, ToSession or Drop.
func (r *Router) FromStack(pkt []byte) Verdict { return Drop }

// FromTunnel returns the verdict about a packet that the agent sent: ToSession, ToStack or Drop.
func (r *Router) FromTunnel(pkt []byte) Verdict { return Drop }

// Stats are exact counts since New.
type Stats struct {
	ToTunnel, ToStack, ToSession uint64
	// Drops counts dropped packets by reason; reasons that never happened are absent.
	Drops map[string]uint64
	// Flows is the number of flows in the table now; Opened, Expired and Evicted count over time.
	Flows                    int
	Opened, Expired, Evicted uint64
}

// Stats returns a snapshot of the counters.
func (r *Router) Stats() Stats { return Stats{} }
