package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/netstack/relay"
)

// openTCP is a TCP port of the laptop that leads to a program.
type openTCP struct {
	at        netns.Port // the program's listener; guarded by ports.mu
	host      uint16
	since     time.Time
	seen      bool // guarded by ports.mu: the program has listened
	listeners []net.Listener
}

func (o *openTCP) close() {
	for _, ln := range o.listeners {
		ln.Close()
	}
}

// isOpen reports whether the port is open for a program that has listened.
func (p *ports) isOpen(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.tcp[port]
	return o != nil && o.seen
}

// openTCP opens the port of the listener f if it is not open yet.
func (p *ports) openTCP(f netns.Port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	port := f.At.Port()
	if o := p.tcp[port]; o != nil {
		if f.At.Addr().IsUnspecified() {
			o.at = f // the wider one
		}
		return nil
	}
	if len(p.tcp) >= maxPorts || p.ctx.Err() != nil {
		return syscall.ENOBUFS
	}
	o := &openTCP{at: f, host: p.policy.host(port), since: time.Now()}
	var err error
	if o.listeners, err = listenLoopback(o.host, f); err != nil {
		return err
	}
	p.tcp[port] = o
	for _, ln := range o.listeners {
		p.wg.Go(func() { p.accept(ln, o) }) // ends with ln
	}
	return nil
}

// listenLoopback listens on the laptop's loopback addresses of the families that
// the program listens on, all or none.
func listenLoopback(port uint16, f netns.Port) ([]net.Listener, error) {
	dual := f.IPv6 && f.At.Addr().IsUnspecified() && !f.V6Only
	var out []net.Listener
	for _, l := range []struct {
		network, host string
		wanted        bool
	}{
		{"tcp4", "127.0.0.1", dual || !f.At.Addr().Is6()},
		{"tcp6", "::1", f.At.Addr().Is6()},
	} {
		if !l.wanted {
			continue
		}
		ln, err := net.Listen(l.network, net.JoinHostPort(l.host, strconv.Itoa(int(port))))
		if err == nil {
			out = append(out, ln)
			continue
		}
		if dual && noIPv6(err) {
			continue
		}
		for _, ln := range out {
			ln.Close()
		}
		return nil, err
	}
	return out, nil
}

// noIPv6 reports whether the laptop has no IPv6 to listen on.
func noIPv6(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EPROTONOSUPPORT)
}

// accept serves one listener until it is closed.
func (p *ports) accept(ln net.Listener, o *openTCP) {
	for {
		c, err := ln.Accept()
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
		return p.dial(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	case a.Is4() && a.IsLoopback():
		return p.dial(ctx, at.At)
	case a.IsUnspecified():
		a = netip.IPv6Loopback()
	}
	return p.inside.DialTCP(ctx, netip.AddrPortFrom(a, port))
}
