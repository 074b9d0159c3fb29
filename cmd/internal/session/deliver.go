package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/relay"
	"github.com/borrownet/borrownet/netstack/replay"
	"github.com/borrownet/borrownet/netstack/router"
)

// localhost is where programs of the session listen too, if they listen on all
// addresses.
var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// deliver connects to a local program as the client of a mirrored flow. A program of
// the session, and one in a container that has joined it, sees the client's address. One
// of the laptop, on its loopback, cannot, but may be told.
func (s *Session) deliver(ctx context.Context, call replay.Call) (relay.Conn, error) {
	port := call.Server.Port()
	if s.helper != nil {
		c, err := s.deliverInside(ctx, call)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			return c, err
		}
	}
	if c, err := s.deliverContained(ctx, call); !errors.Is(err, syscall.ECONNREFUSED) {
		return c, err
	}
	c, err := s.dialOwn(ctx, port)
	if err != nil || !s.req.MirrorProxy {
		return c, err
	}
	if _, err := c.Write(proxyHeader(call.Client, call.Server)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// dialOwn connects to a port of the laptop's loopback that is not the session's.
func (s *Session) dialOwn(ctx context.Context, port uint16) (relay.Conn, error) {
	for _, a := range []netip.Addr{localhost, netip.IPv6Loopback()} {
		at := netip.AddrPortFrom(a, port)
		if s.ports.owns(at) {
			continue
		}
		c, err := dialLaptop(ctx, at)
		if err == nil || a.Is4() && !errors.Is(err, syscall.ECONNREFUSED) {
			return c, err
		}
	}
	return nil, syscall.ECONNREFUSED
}

// deliverInside connects to a program in the session's namespace.
func (s *Session) deliverInside(ctx context.Context, call replay.Call) (relay.Conn, error) {
	client, server := s.places(call.Client, call.Server)
	if call.Again || s.guests != nil && !s.fabric.router.Expect(client, server, router.ToSession) {
		client = netip.AddrPortFrom(client.Addr(), 0)
	}
	c, err := s.stack.DialTCP(ctx, client, server)
	if errors.Is(err, syscall.EADDRINUSE) && client.Port() != 0 {
		// An earlier flow of the same port is not over here yet.
		c, err = s.stack.DialTCP(ctx, netip.AddrPortFrom(client.Addr(), 0), server)
	}
	if err != nil {
		return nil, err // not c: a nil *TCPConn is no nil relay.Conn
	}
	return c, nil
}

// containedTries is how many ports are tried for one delivery to a container.
const containedTries = 4

// deliverContained connects to a program in a container of the session, if one has
// joined; else it is refused.
func (s *Session) deliverContained(ctx context.Context, call replay.Call) (relay.Conn, error) {
	nets, joined := s.guests.networks()
	client, server, ok := s.containedPlaces(call.Client, call.Server, nets)
	if !joined || !ok {
		return nil, syscall.ECONNREFUSED
	}
	var err error
	for try := range containedTries {
		if try > 0 || call.Again || client.Port() == 0 {
			client = netip.AddrPortFrom(client.Addr(), uint16(1<<15+rand.IntN(1<<15)))
		}
		// An earlier flow of the same port, or a program's own, may be in the way.
		if err = syscall.EADDRINUSE; s.fabric.router.Expect(client, server, router.ToContainer) {
			var c *netstack.TCPConn
			if c, err = s.stack.DialTCP(ctx, client, server); err == nil {
				return c, nil
			}
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, err
}

// containedPlaces is places for a container, whose loopback is its own and whose engine's
// networks, nets, are nearer to it than the session: who cannot be named there, as the
// pod's sidecar at 127.0.0.6, is guestUnnamed.
func (s *Session) containedPlaces(client, server netip.AddrPort, nets []netip.Prefix) (from, to netip.AddrPort, ok bool) {
	own := onePerFamily(s.target.PodIPs)
	unnamed := client.Addr().IsLoopback() || slices.Contains(s.target.PodIPs, client.Addr()) ||
		slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(client.Addr()) })
	if unnamed {
		client = netip.AddrPortFrom(guestUnnamed, client.Port())
	}
	i := slices.IndexFunc(own, func(a netip.Addr) bool { return a.Is4() == client.Addr().Is4() })
	if i < 0 {
		return client, server, false
	}
	return client, netip.AddrPortFrom(own[i], server.Port()), true
}

// places returns from where to where a delivery goes in the namespace. What the pod
// has sent to itself comes from its loopback there, where nothing may come from
// outside with the namespace's own address.
func (s *Session) places(client, server netip.AddrPort) (from, to netip.AddrPort) {
	own := func(a netip.Addr) bool { return slices.Contains(s.target.PodIPs, a) }
	for _, a := range onePerFamily(s.target.PodIPs) {
		if own(server.Addr()) && a.Is4() == server.Addr().Is4() {
			server = netip.AddrPortFrom(a, server.Port()) // which the namespace has
		}
	}
	both4 := client.Addr().Is4() && server.Addr().Is4()
	switch {
	case own(client.Addr()), client.Addr().Is6() && client.Addr().IsLoopback(), server.Addr().IsLoopback() && !(both4 && client.Addr().IsLoopback()):
		return netip.AddrPortFrom(localhost, 0), netip.AddrPortFrom(localhost, server.Port())
	}
	return client, server
}
