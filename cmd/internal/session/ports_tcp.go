package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/netstack/relay"
)

// door names a TCP port of the laptop's loopback, by the program's number: 127.0.0.1 and
// ::1 may lead to different listeners.
type door struct {
	port uint16
	v6   bool
}

// doorsOf returns those that the listener f is to be reached by.
func doorsOf(f netns.Port) []door {
	port, a := f.At.Port(), f.At.Addr()
	switch {
	case !a.Is6():
		return []door{{port: port}}
	case a.IsUnspecified() && !f.V6Only:
		return []door{{port: port}, {port, true}}
	}
	return []door{{port, true}}
}

// nearer reports whether a connection from the laptop's loopback is f's rather than
// other's, by the same door: the loopback's own listener comes before that of all
// addresses, and those before one of the pod's address.
func nearer(f, other netns.Port) bool {
	distance := func(f netns.Port) int {
		switch a := f.At.Addr(); {
		case a == localhost, a == netip.IPv6Loopback():
			return 0
		case a.IsUnspecified():
			return 1
		}
		return 2
	}
	return distance(f) < distance(other)
}

// openTCP is an open door.
type openTCP struct {
	at       netns.Port // the program's listener; guarded by ports.mu
	host     uint16
	since    time.Time
	seen     bool // guarded by ports.mu: the program has listened
	listener net.Listener
}

// isOpen reports whether a door of f is open for a program that has listened.
func (p *ports) isOpen(f netns.Port) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(doorsOf(f), func(d door) bool { return p.tcp[d] != nil && p.tcp[d].seen })
}

// openTCP opens the doors of the listener f that are not open yet, all or none. listens
// is false of one that is about to.
func (p *ports) openTCP(f netns.Port, listens bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	doors := doorsOf(f)
	var opened []door
	for _, d := range doors {
		if o := p.tcp[d]; o != nil {
			if nearer(f, o.at) {
				o.at = f
			}
			continue
		}
		err := p.openDoorLocked(d, &openTCP{at: f, host: p.policy.host(d.port), since: time.Now(), seen: listens})
		if err == nil {
			opened = append(opened, d)
			continue
		}
		if len(doors) > 1 && noIPv6(err) {
			continue
		}
		for _, d := range opened {
			p.tcp[d].listener.Close()
			delete(p.tcp, d)
		}
		return err
	}
	return nil
}

func (p *ports) openDoorLocked(d door, o *openTCP) error {
	if len(p.tcp) >= 2*maxPorts || p.ctx.Err() != nil {
		return syscall.ENOBUFS
	}
	network, host := "tcp4", localhost
	if d.v6 {
		network, host = "tcp6", netip.IPv6Loopback()
	}
	var err error
	if o.listener, err = net.Listen(network, netip.AddrPortFrom(host, o.host).String()); err != nil {
		return err
	}
	p.tcp[d] = o
	p.wg.Go(func() { p.accept(o) }) // ends with the listener
	return nil
}

// noIPv6 reports whether the laptop has no IPv6 to listen on.
func noIPv6(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EPROTONOSUPPORT)
}

// accept serves one door until it is closed.
func (p *ports) accept(o *openTCP) {
	for {
		c, err := o.listener.Accept()
		if errors.Is(err, net.ErrClosed) || p.ctx.Err() != nil {
			return
		}
		if err != nil {
			// Out of descriptors or memory: whoever gives up frees some.
			select {
			case <-time.After(10 * time.Millisecond):
			case <-p.ctx.Done():
			}
			continue
		}
		tcp := c.(*net.TCPConn) // what these networks give
		select {
		case p.conns <- struct{}{}:
		default:
			reset(tcp)
			continue
		}
		p.wg.Go(func() { // ends with the connection, or with ctx
			defer func() { <-p.conns }()
			p.join(tcp, o)
		})
	}
}

// reset closes c so that its peer sees a refusal, not an end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// join carries a connection from the laptop to the program.
func (p *ports) join(c *net.TCPConn, o *openTCP) {
	p.mu.Lock()
	at := o.at
	p.mu.Unlock()
	peer, err := p.dialProgram(at)
	if err != nil {
		reset(c)
		p.look() // it does not listen any more
		return
	}
	p.mu.Lock()
	o.seen = true
	p.mu.Unlock()
	relay.Copy(p.ctx, c, peer, relay.Options{})
}

// dialProgram connects to the program's listener. It sees 127.0.0.1 as its peer
// where that can reach it.
func (p *ports) dialProgram(at netns.Port) (relay.Conn, error) {
	ctx, cancel := context.WithTimeout(p.ctx, laptopTimeout)
	defer cancel()
	a, port := at.At.Addr(), at.At.Port()
	switch {
	case a.IsUnspecified() && !at.V6Only:
		return p.dial(ctx, netip.AddrPortFrom(localhost, port))
	case a.Is4() && a.IsLoopback():
		return p.dial(ctx, at.At)
	case a.IsUnspecified():
		a = netip.IPv6Loopback()
	}
	return p.inside.DialTCP(ctx, netip.AddrPortFrom(a, port))
}
