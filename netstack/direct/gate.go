package direct

import (
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/ipv4"

	"github.com/borrownet/borrownet/netstack/link"
)

// gate lets what the client sends through to QUIC, and nothing else.
type gate struct {
	verifier *link.Verifier
	reply    func(b []byte, to net.Addr) (int, error)
	stranger func() // told of each datagram that is dropped

	peer atomic.Pointer[netip.AddrPort] // of the last good knock; nil = there was none
}

// admits reports whether b is for QUIC. A knock is answered, and is not.
func (g *gate) admits(b []byte, from net.Addr) bool {
	addr, ok := addrPort(from)
	if !ok {
		return false
	}
	if len(b) == link.KnockLen {
		if answer, err := g.verifier.Answer(b); err == nil {
			g.peer.Store(&addr)
			_, _ = g.reply(answer, from) // the client knocks again
			return false
		}
	}
	if peer := g.peer.Load(); peer != nil && *peer == addr {
		return true
	}
	g.stranger()
	return false
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// gated is any socket behind a gate.
type gated struct {
	net.PacketConn
	gate *gate
}

func (g *gated) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := g.PacketConn.ReadFrom(b)
		if err != nil || g.gate.admits(b[:n], from) {
			return n, from, err
		}
	}
}

// gatedUDP is a kernel's socket behind a gate: quic-go reads such in batches.
type gatedUDP struct {
	*net.UDPConn
	batch *ipv4.PacketConn // of either address family
	gate  *gate
}

// ReadBatch is that of ipv4.PacketConn. What is let through moves to the front: into the buffers that are there, since
// their owner knows them by their places.
func (g *gatedUDP) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		n, err := g.batch.ReadBatch(ms, flags)
		if err != nil {
			return n, err
		}
		kept := 0
		for i := range ms[:n] {
			if !g.gate.admits(ms[i].Buffers[0][:ms[i].N], ms[i].Addr) {
				continue
			}
			if kept != i {
				to, from := &ms[kept], &ms[i]
				to.N, to.NN = copy(to.Buffers[0], from.Buffers[0][:from.N]), copy(to.OOB, from.OOB[:from.NN])
				to.Flags, to.Addr = from.Flags, from.Addr
			}
			kept++
		}
		if kept > 0 {
			return kept, nil
		}
	}
}

// ReadFrom is gated too, though quic-go has no use for it where it reads in batches.
func (g *gatedUDP) ReadFrom(b []byte) (int, net.Addr, error) {
	return (&gated{g.UDPConn, g.gate}).ReadFrom(b)
}

// ReadMsgUDP is gated too.
func (g *gatedUDP) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	for {
		n, oobn, flags, from, err = g.UDPConn.ReadMsgUDP(b, oob)
		if err != nil || g.gate.admits(b[:n], from) {
			return n, oobn, flags, from, err
		}
	}
}

// behindGate puts pc behind a gate.
func behindGate(pc net.PacketConn, v *link.Verifier, stranger func()) net.PacketConn {
	g := &gate{verifier: v, reply: pc.WriteTo, stranger: stranger}
	if u, ok := pc.(*net.UDPConn); ok {
		return &gatedUDP{UDPConn: u, batch: ipv4.NewPacketConn(u), gate: g}
	}
	return &gated{PacketConn: pc, gate: g}
}

// isAnswer reports whether b answers one of the knocks.
func isAnswer(knocks []*link.Knock, b []byte) bool {
	for _, k := range knocks {
		if k.Answered(b) {
			return true
		}
	}
	return false
}
