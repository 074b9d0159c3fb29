package demo

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/relay"
)

// A pod is a pod of the world; it is what an agent in it takes for the network.
type pod struct {
	name      string
	uid       string
	workload  string // TYPE/NAME
	container string
	addrs     []netip.Addr
	services  []netip.Addr // whose flows end at the pod
	env       []string
	stack     *netstack.Stack
	ether     *ether
}

var _ agent.Network = (*pod)(nil)

// DialTCP implements agent.Network.
func (p *pod) DialTCP(ctx context.Context, dst netip.AddrPort) (relay.Conn, error) {
	c, err := p.stack.DialTCP(ctx, p.source(dst.Addr()), dst)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// source is where sockets to dst are bound: the pod's first address of the
// family.
func (p *pod) source(dst netip.Addr) netip.AddrPort {
	for _, a := range p.addrs {
		if a.Is4() == dst.Is4() {
			return netip.AddrPortFrom(a, 0)
		}
	}
	return netip.AddrPort{}
}

// ListenUDP implements agent.Network.
func (p *pod) ListenUDP(dst netip.Addr) (agent.Datagrams, error) {
	s, err := p.stack.ListenUDP(p.source(dst))
	if err != nil {
		return nil, err
	}
	return datagrams{s}, nil
}

// datagrams is a UDPSocket as the agent wants it.
type datagrams struct{ socket *netstack.UDPSocket }

func (d datagrams) WriteTo(payload []byte, dst netip.AddrPort) error {
	_, err := d.socket.WriteToAddrPort(payload, dst)
	return err
}

func (d datagrams) ReadFrom(buf []byte) (int, netip.AddrPort, error) {
	n, src, err := d.socket.ReadFromAddrPort(buf)
	if lost, ok := errors.AsType[*netstack.Undelivered](err); ok {
		return 0, netip.AddrPort{}, &agent.Unreachable{Dst: lost.Dst, Err: lost.Err}
	}
	return n, src, err
}

func (d datagrams) Close() error { return d.socket.Close() }

// errNoPing is why there is no echo: the stacks have no ping sockets.
var errNoPing = errors.New("the built-in world has no ping sockets")

// ListenEcho implements agent.Network.
func (p *pod) ListenEcho(netip.Addr) (agent.Echoes, error) {
	return nil, &net.OpError{Op: "listen", Net: "icmp", Err: errNoPing}
}

// Addrs implements agent.Network.
func (p *pod) Addrs() ([]netip.Addr, error) { return p.addrs, nil }

// Resolv implements agent.Network.
func (p *pod) Resolv() (string, error) { return resolvConf, nil }
