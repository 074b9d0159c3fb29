package session

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/netstack/flow"
)

// openUDP is a UDP port of the laptop that leads to a program. Who speaks to it is
// known by port: the program sees 127.0.0.1 with the same one.
type openUDP struct {
	port, host uint16
	conns      []*net.UDPConn

	mu      sync.Mutex
	clients map[uint16]udpClient
}

type udpClient struct {
	conn *net.UDPConn // on which it spoke
	addr netip.AddrPort
	last time.Time
}

func (o *openUDP) close() {
	for _, c := range o.conns {
		c.Close()
	}
}

// openUDP opens the port of the socket f if it is not open yet.
func (p *ports) openUDP(f netns.Port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	port := f.At.Port()
	if p.udp[port] != nil {
		return nil
	}
	if len(p.udp) >= maxPorts || p.ctx.Err() != nil {
		return syscall.ENOBUFS
	}
	o := &openUDP{port: port, host: p.policy.host(port), clients: map[uint16]udpClient{}}
	for _, ip := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, o.host)))
		if err != nil && ip.Is4() {
			return err
		}
		if err == nil {
			o.conns = append(o.conns, c)
		}
	}
	p.udp[port] = o
	for _, c := range o.conns {
		p.wg.Go(func() { p.receive(c, o) }) // ends with c
	}
	return nil
}

// receive passes datagrams of the laptop to the program until c is closed.
func (p *ports) receive(c *net.UDPConn, o *openUDP) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	dst := netip.AddrPortFrom(loopback, o.port)
	buf := make([]byte, maxPacket)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // about a datagram that was sent to somebody who is gone
		}
		o.remember(udpClient{conn: c, addr: from, last: time.Now()})
		_ = p.sendUDP(netip.AddrPortFrom(loopback, from.Port()), dst, buf[:n]) // no room: as a lost datagram
	}
}

// remember notes who spoke. When there are too many the one that has been silent longest is forgotten.
func (o *openUDP) remember(c udpClient) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.clients[c.addr.Port()]; !known && len(o.clients) >= maxUDPFlows {
		var oldest uint16
		var at time.Time
		for port, old := range o.clients {
			if at.IsZero() || old.last.Before(at) {
				oldest, at = port, old.last
			}
		}
		delete(o.clients, oldest)
	}
	o.clients[c.addr.Port()] = c
}

// answer passes a program's datagram to who spoke to it from the laptop, and
// reports whether f is such.
func (p *ports) answer(f flow.Flow, payload []byte) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	o := p.udp[f.Src.Port()]
	p.mu.Unlock()
	if o == nil {
		return false
	}
	o.mu.Lock()
	c, ok := o.clients[f.Dst.Port()]
	if ok {
		c.last = time.Now()
		o.clients[f.Dst.Port()] = c
	}
	o.mu.Unlock()
	if ok {
		_, _ = c.conn.WriteToUDPAddrPort(payload, c.addr) // it may have gone
	}
	return ok
}
