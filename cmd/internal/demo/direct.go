package demo

import (
	"net"
	"net/netip"
)

// Locate returns where this machine reaches a UDP port of a pod: the world is a flat network, on the loopback.
func (*Client) Locate(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(loopback, at.Port())
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Wall cuts the laptop off from the pods' UDP ports, or lets it reach them again. Nobody is told.
func (w *World) Wall(on bool) { w.wall.Store(on) }

// listenDirect is agent.ListenDirect of the world's pods.
func (w *World) listenDirect(netip.Addr) (net.PacketConn, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		return nil, err
	}
	return &walled{PacketConn: conn, world: w}, nil
}

// walled is a socket behind the wall.
type walled struct {
	net.PacketConn
	world *World
}

func (c *walled) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.world.wall.Load() {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

func (c *walled) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || !c.world.wall.Load() {
			return n, from, err
		}
	}
}
