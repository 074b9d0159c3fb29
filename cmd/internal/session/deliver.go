package session

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/relay"
	"github.com/borrownet/borrownet/netstack/replay"
)

// localhost is where programs of the session listen too, if they listen on all
// addresses.
var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// deliver connects to a local program as the client of a mirrored flow. A program of
// the session sees the client's address. One of the laptop, on its loopback, cannot,
// but may be told.
func (s *Session) deliver(ctx context.Context, call replay.Call) (relay.Conn, error) {
	port := call.Server.Port()
	if s.helper != nil {
		c, err := s.deliverInside(ctx, call)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || s.ports.owns(flow.TCP, port) {
			return c, err
		}
	}
	c, err := dialLaptop(ctx, netip.AddrPortFrom(localhost, port))
	if errors.Is(err, syscall.ECONNREFUSED) {
		if c6, err6 := dialLaptop(ctx, netip.AddrPortFrom(netip.IPv6Loopback(), port)); err6 == nil {
			c, err = c6, nil
		}
	}
	if err != nil || !s.req.MirrorProxy {
		return c, err
	}
	if _, err := c.Write(proxyHeader(call.Client, call.Server)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// deliverInside connects to a program in the session's namespace.
func (s *Session) deliverInside(ctx context.Context, call replay.Call) (relay.Conn, error) {
	client, server := s.places(call.Client, call.Server)
	if call.Again {
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
