package netstack

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/borrownet/borrownet/netstack/flow"
)

// maxUndelivered bounds the ICMP errors that wait to be read from one socket.
const maxUndelivered = 64

// An Undelivered reports that a datagram to Dst did not arrive, as an ICMP
// error said.
type Undelivered struct {
	Dst netip.AddrPort
	Err error // the errno
}

func (e *Undelivered) Error() string { return fmt.Sprintf("send to %s: %v", e.Dst, e.Err) }

// Unwrap returns the errno.
func (e *Undelivered) Unwrap() error { return e.Err }

// A UDPSocket is an unconnected UDP endpoint.
type UDPSocket struct {
	life
	ep    tcpip.Endpoint
	local netip.AddrPort
	lost  chan *Undelivered // buffered, never closed

	readMu   sync.Mutex // serializes reads
	readable <-chan struct{}
}

var _ net.PacketConn = (*UDPSocket)(nil)

// ListenUDP returns a socket for datagrams from and to anybody at addr, on
// every address of its family that the stack accepts packets for if that is
// unspecified. Port 0 lets the stack choose.
func (s *Stack) ListenUDP(addr netip.AddrPort) (*UDPSocket, error) {
	addr = unmap(addr)
	c, err := s.listenUDP(addr)
	if err != nil {
		return nil, opError("listen", "udp", nil, udpAddr(addr), err)
	}
	return c, nil
}

func (s *Stack) listenUDP(addr netip.AddrPort) (*UDPSocket, error) {
	switch {
	case s.isClosed():
		return nil, net.ErrClosed
	case !addr.Addr().IsValid():
		return nil, syscall.EINVAL
	case addr.Addr().Is6() && !s.ipv6:
		return nil, syscall.EADDRNOTAVAIL
	case !addr.Addr().IsUnspecified() && !s.any && !s.owns(addr.Addr()):
		return nil, syscall.EADDRNOTAVAIL
	}
	wq := new(waiter.Queue)
	ep, terr := s.gv.NewEndpoint(udp.ProtocolNumber, protocolOf(addr.Addr()), wq)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	ep.SocketOptions().SetV6Only(true)
	c := &UDPSocket{ep: ep, lost: make(chan *Undelivered, maxUndelivered)}
	c.begin(s, c.opError)
	var entry waiter.Entry
	entry, c.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	err := errnoOf(ep.Bind(toFullAddress(addr)))
	var local netip.AddrPort
	if err == nil {
		local, err = localAddr(ep)
	}
	if err != nil {
		ep.Close()
		return nil, err
	}
	c.local = netip.AddrPortFrom(addr.Addr(), local.Port())
	s.sockets.add(c)
	return c, nil
}

// udpSockets are a stack's unconnected sockets by their local port. They learn
// here of ICMP errors, which gVisor reports to connected endpoints only. The
// zero value is ready to use.
type udpSockets struct {
	mu     sync.Mutex
	byPort map[uint16][]*UDPSocket
}

func (u *udpSockets) add(c *UDPSocket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byPort == nil {
		u.byPort = make(map[uint16][]*UDPSocket)
	}
	u.byPort[c.local.Port()] = append(u.byPort[c.local.Port()], c)
}

func (u *udpSockets) remove(c *UDPSocket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	port := c.local.Port()
	kept := make([]*UDPSocket, 0, len(u.byPort[port]))
	for _, other := range u.byPort[port] {
		if other != c {
			kept = append(kept, other)
		}
	}
	if u.byPort[port] = kept; len(kept) == 0 {
		delete(u.byPort, port)
	}
}

// heed tells the socket whose datagram p is about, if there is one.
func (u *udpSockets) heed(p flow.Packet) {
	if p.Inner == nil || p.Inner.Proto != flow.UDP {
		return
	}
	err := errnoOfICMP(p)
	if err == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.byPort[p.Inner.Src.Port()] {
		if a := c.local.Addr(); a != p.Inner.Src.Addr() && (!a.IsUnspecified() || a.Is4() != p.Inner.Src.Addr().Is4()) {
			continue
		}
		select {
		case c.lost <- &Undelivered{Dst: p.Inner.Dst, Err: err}:
		default: // as an error queue that is full
		}
	}
}

func (c *UDPSocket) opError(op string, err error) error {
	return opError(op, "udp", c.LocalAddr(), nil, err)
}

// ReadFromAddrPort returns one datagram, cut to len(b), and its sender, or an
// *Undelivered error for a datagram that the network gave back. The socket
// lives on after that.
func (c *UDPSocket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, src, err := c.read(b)
	if err != nil {
		return 0, netip.AddrPort{}, c.opError("read", err)
	}
	return n, src, nil
}

func (c *UDPSocket) read(b []byte) (int, netip.AddrPort, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	passed := c.readBy.wait()
	for {
		if err := c.ready(passed); err != nil {
			return 0, netip.AddrPort{}, err
		}
		select {
		case lost := <-c.lost:
			return 0, netip.AddrPort{}, lost
		default:
		}
		w := tcpip.SliceWriter(b)
		res, terr := c.ep.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch terr.(type) {
		case nil:
			return res.Count, unmap(addrPortFrom(res.RemoteAddr.Addr, res.RemoteAddr.Port)), nil
		case *tcpip.ErrWouldBlock:
		default:
			return 0, netip.AddrPort{}, c.failed(terr)
		}
		select {
		case <-c.readable:
		case lost := <-c.lost:
			return 0, netip.AddrPort{}, lost
		case <-c.closed:
		case <-c.stack.done:
		case <-passed:
		}
	}
}

// ReadFrom implements net.PacketConn. As with a kernel's unconnected socket,
// ICMP errors are none of its business.
func (c *UDPSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, src, err := c.read(b)
		if _, lost := err.(*Undelivered); lost {
			continue
		}
		if err != nil {
			return 0, nil, c.opError("read", err)
		}
		return n, udpAddr(src), nil
	}
}

// WriteToAddrPort sends one datagram. It never blocks: a datagram that finds no
// room in the link is dropped and counted, and the error is ENOBUFS.
func (c *UDPSocket) WriteToAddrPort(b []byte, dst netip.AddrPort) (int, error) {
	dst = unmap(dst)
	n, err := c.write(b, dst)
	return n, opError("write", "udp", c.LocalAddr(), udpAddr(dst), err)
}

func (c *UDPSocket) write(b []byte, dst netip.AddrPort) (int, error) {
	if err := c.ready(c.writeBy.wait()); err != nil {
		return 0, err
	}
	switch {
	case !dst.Addr().IsValid(), dst.Addr().Is4() != c.local.Addr().Is4():
		return 0, syscall.EINVAL
	case len(b) > maxDatagram:
		return 0, syscall.EMSGSIZE
	}
	to := toFullAddress(dst)
	n, terr := c.ep.Write(bytes.NewReader(b), tcpip.WriteOptions{To: &to})
	if terr == nil {
		return int(n), nil
	}
	err := c.failed(terr)
	if _, full := terr.(*tcpip.ErrWouldBlock); full && !errors.Is(err, net.ErrClosed) {
		err = syscall.ENOBUFS
	}
	return 0, err
}

// WriteTo implements net.PacketConn; see WriteToAddrPort.
func (c *UDPSocket) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, opError("write", "udp", c.LocalAddr(), addr, syscall.EINVAL)
	}
	return c.WriteToAddrPort(b, to.AddrPort())
}

// Close implements net.PacketConn.
func (c *UDPSocket) Close() error {
	return c.end("close", func() {
		c.stack.sockets.remove(c)
		c.ep.Close()
	})
}

// LocalAddr implements net.PacketConn.
func (c *UDPSocket) LocalAddr() net.Addr { return udpAddr(c.local) }
