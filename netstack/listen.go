package netstack

import (
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// listenBacklog is how many conns may wait for Accept.
const listenBacklog = 1024

// ListenTCP listens on addr, on every address that the stack accepts packets
// for if its address is zero or unspecified. Port 0 lets the stack choose.
func (s *Stack) ListenTCP(addr netip.AddrPort) (net.Listener, error) {
	addr = unmap(addr)
	l, err := s.listenTCP(addr)
	if err != nil {
		return nil, opError("listen", "tcp", nil, tcpAddr(addr), err)
	}
	return l, nil
}

func (s *Stack) listenTCP(addr netip.AddrPort) (*tcpListener, error) {
	if s.isClosed() {
		return nil, net.ErrClosed
	}
	proto := header.IPv4ProtocolNumber
	switch {
	case addr.Addr().Is6() && !s.ipv6:
		return nil, syscall.EADDRNOTAVAIL
	case addr.Addr().Is6(), !addr.Addr().IsValid() && s.ipv6:
		// An IPv6 endpoint bound to no address takes IPv4 too.
		proto = header.IPv6ProtocolNumber
	}
	wq := new(waiter.Queue)
	ep, terr := s.gv.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	// As the net package does: conns of an earlier listener are no obstacle.
	ep.SocketOptions().SetReuseAddress(true)
	err := s.bind(ep, addr)
	if err == nil {
		err = errnoOf(ep.Listen(listenBacklog))
	}
	var local netip.AddrPort
	if err == nil {
		local, err = localAddr(ep)
	}
	if err != nil {
		ep.Close()
		return nil, err
	}
	if !local.Addr().IsValid() {
		any := netip.IPv4Unspecified()
		if proto == header.IPv6ProtocolNumber {
			any = netip.IPv6Unspecified()
		}
		local = netip.AddrPortFrom(any, local.Port())
	}
	l := &tcpListener{stack: s, ep: ep, local: local, closed: make(chan struct{})}
	var entry waiter.Entry
	entry, l.acceptable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	return l, nil
}

// A tcpListener is the net.Listener of ListenTCP.
type tcpListener struct {
	stack *Stack
	ep    tcpip.Endpoint
	local netip.AddrPort

	acceptMu   sync.Mutex // serializes Accepts
	acceptable <-chan struct{}
	closed     chan struct{}
	closeOnce  sync.Once
}

// Accept implements net.Listener; the conns are *TCPConn.
func (l *tcpListener) Accept() (net.Conn, error) {
	c, err := l.accept()
	if err != nil {
		return nil, opError("accept", "tcp", nil, l.Addr(), err)
	}
	return c, nil
}

func (l *tcpListener) accept() (*TCPConn, error) {
	l.acceptMu.Lock()
	defer l.acceptMu.Unlock()
	for {
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-l.stack.done:
			return nil, net.ErrClosed
		default:
		}
		var peer tcpip.FullAddress
		ep, wq, terr := l.ep.Accept(&peer)
		switch terr.(type) {
		case nil:
			local, err := localAddr(ep)
			if err != nil {
				ep.Close()
				continue
			}
			return l.stack.newTCPConn(ep, wq, unmap(local), unmap(addrPortFrom(peer.Addr, peer.Port))), nil
		case *tcpip.ErrWouldBlock:
			select {
			case <-l.acceptable:
			case <-l.closed:
			case <-l.stack.done:
			}
		default:
			select {
			case <-l.closed:
				return nil, net.ErrClosed
			case <-l.stack.done:
				return nil, net.ErrClosed
			default:
				return nil, errnoOf(terr)
			}
		}
	}
}

// Close implements net.Listener. Conns that wait for Accept are reset.
func (l *tcpListener) Close() error {
	err := net.ErrClosed
	l.closeOnce.Do(func() {
		close(l.closed)
		l.ep.Close()
		err = nil
	})
	return opError("close", "tcp", nil, l.Addr(), err)
}

// Addr implements net.Listener.
func (l *tcpListener) Addr() net.Addr { return tcpAddr(l.local) }
