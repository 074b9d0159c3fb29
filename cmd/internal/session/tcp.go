package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/relay"
)

const (
	// maxDialing bounds the loopback connections that are being set up.
	maxDialing = 256
	// inwardTimeout bounds the question whether a program of the session listens. Its
	// kernel answers at once, unless the listener's queue is full, a packet was lost or
	// the machine is busy: so it is asked three times, after 0, 1 and 3 s.
	inwardTimeout = 4 * time.Second
	// laptopTimeout bounds a dial on the laptop's loopback.
	laptopTimeout = 10 * time.Second
)

// locals answers what programs of the session send to the laptop: its loopback
// and its resolvers.
type locals struct {
	ctx         context.Context // done when the session ends
	stack       *netstack.Stack
	sendUDP     func(src, dst netip.AddrPort, payload []byte) // without the stack
	nameservers *nameservers
	local       []netip.Prefix // destinations in the laptop's own network
	remote      []uint16       // ports of localhost that are the pod's
	redirects   *redirects
	dns         dnsServer
	udp         *udpTable
	ports       atomic.Pointer[ports] // nil until the session has a namespace
	guard       *guarded              // nil: what goes to the pod is not looked into
	lost        *atomic.Bool          // there is no pod
}

// dnsServer is what locals needs of the DNS proxy.
type dnsServer interface {
	Serve(query []byte, reply func([]byte)) bool
	ServeTCP(ctx context.Context, c net.Conn)
}

// forwardTCP decides about one connection that a program of the session opens.
func (l *locals) forwardTCP(r *netstack.TCPRequest) {
	dst := r.Flow().Dst
	if to, redirected := l.redirects.target(dst); redirected {
		if !to.IsValid() {
			r.Reject(syscall.ECONNREFUSED)
			return
		}
		l.relay(r, to)
		return
	}
	switch {
	case l.resolves(dst):
		if c, err := r.Accept(); err == nil {
			l.dns.ServeTCP(l.ctx, c)
		}
	case dst.Addr().IsLoopback(), l.isLocal(dst.Addr()):
		l.relay(r, dst)
	case l.guard != nil && !l.guard.lost():
		l.guard.carry(l.ctx, r)
	default:
		// Only a lost session sends these here. An ICMP error would tell more than a reset does, but who polls(2) for the end
		// of connect(2) may take it for success: tcp_v4_err of Linux wakes him before it sets SO_ERROR.
		r.Reject(syscall.ECONNREFUSED)
	}
}

// resolves reports whether dst is where programs ask for names.
func (l *locals) resolves(dst netip.AddrPort) bool {
	return l.nameservers.has(dst) || dst == netip.AddrPortFrom(guestResolver, dnsPort)
}

// relay joins the request to who listens on its destination.
func (l *locals) relay(r *netstack.TCPRequest, dst netip.AddrPort) {
	dial := l.dialLaptop
	if dst.Addr().IsLoopback() {
		dial = l.dialLoopback
	}
	peer, err := dial(dst)
	if err != nil {
		r.Reject(err)
		return
	}
	c, err := r.Accept()
	if err != nil {
		peer.Close()
		return
	}
	if l.guard != nil && dst.Addr().IsLoopback() && slices.Contains(l.remote, dst.Port()) {
		l.guard.copy(l.ctx, c, peer)
		return
	}
	relay.Copy(l.ctx, c, peer, relay.Options{})
}

// dialProgram connects to a program of the session on a loopback address.
func (l *locals) dialProgram(ctx context.Context, dst netip.AddrPort) (relay.Conn, error) {
	c, err := l.stack.DialTCP(ctx, netip.AddrPortFrom(dst.Addr(), 0), dst)
	if err != nil {
		return nil, err // not c: a nil *TCPConn is no nil relay.Conn
	}
	return c, nil
}

// dialLoopback connects to a loopback address: to a program of the session that
// listens there, else to one of the laptop. Silence is no answer: the connect goes on
// waiting, and comes again.
func (l *locals) dialLoopback(dst netip.AddrPort) (relay.Conn, error) {
	if slices.Contains(l.remote, dst.Port()) {
		return l.dialRemote(dst.Port())
	}
	ports := l.ports.Load()
	if ports == nil {
		return l.dialLaptop(dst) // there is no namespace that could answer
	}
	ctx, cancel := context.WithTimeout(l.ctx, inwardTimeout)
	defer cancel()
	inside := dst
	if dst.Addr().Is4() {
		// The namespace's kernel answers at no other address of 127.0.0.0/8, not even with
		// a reset, and programs that listen on one of these alone are the laptop's.
		inside = netip.AddrPortFrom(localhost, dst.Port())
	}
	c, err := l.dialProgram(ctx, inside)
	switch {
	case err == nil, errors.Is(err, context.DeadlineExceeded):
		return c, err
	case ports.owns(dst):
		return nil, syscall.ECONNREFUSED // the laptop's port is the one that just refused
	}
	return l.dialLaptop(dst)
}

// dialRemote connects to the pod's loopback.
func (l *locals) dialRemote(port uint16) (relay.Conn, error) {
	if l.lost.Load() {
		return nil, syscall.ECONNREFUSED
	}
	ctx, cancel := context.WithTimeout(l.ctx, dialLimit)
	defer cancel()
	c, err := l.stack.DialTCP(ctx, netip.AddrPortFrom(wire.ClientAddr, 0), netip.AddrPortFrom(wire.LoopbackAddr, port))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// isLocal reports whether the address is in the laptop's own network, by the
// session's policy.
func (l *locals) isLocal(a netip.Addr) bool {
	return slices.ContainsFunc(l.local, func(p netip.Prefix) bool { return p.Contains(a) })
}

// dialLaptop connects from the laptop.
func (l *locals) dialLaptop(dst netip.AddrPort) (relay.Conn, error) { return dialLaptop(l.ctx, dst) }

func dialLaptop(ctx context.Context, dst netip.AddrPort) (relay.Conn, error) {
	d := net.Dialer{Timeout: laptopTimeout}
	c, err := d.DialContext(ctx, "tcp", dst.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(syscall.ECONNREFUSED, c.Close())
	}
	return tcp, nil
}
