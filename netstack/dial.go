package netstack

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/borrownet/borrownet/netstack/flow"
)

// DialTCP connects from src to dst. The zero src, or its zero address or port,
// lets the stack choose. Errors wrap the errno that connect(2) would give, or
// ctx's error.
func (s *Stack) DialTCP(ctx context.Context, src, dst netip.AddrPort) (*TCPConn, error) {
	src, dst = unmap(src), unmap(dst)
	c, err := s.dialTCP(ctx, src, dst)
	if err != nil {
		return nil, opError("dial", "tcp", sourceAddr(src, tcpAddr), tcpAddr(dst), err)
	}
	return c, nil
}

func (s *Stack) dialTCP(ctx context.Context, src, dst netip.AddrPort) (*TCPConn, error) {
	if err := s.checkDial(dst); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	wq := new(waiter.Queue)
	ep, terr := s.gv.NewEndpoint(tcp.ProtocolNumber, protocolOf(dst.Addr()), wq)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)

	local, err := s.connect(ctx, ep, src, dst, connected)
	if err != nil {
		ep.Close()
		return nil, err
	}
	return s.newTCPConn(ep, wq, local, dst), nil
}

// connect connects ep and returns its local address.
func (s *Stack) connect(ctx context.Context, ep tcpip.Endpoint, src, dst netip.AddrPort, connected <-chan struct{}) (netip.AddrPort, error) {
	if err := s.bind(ep, src); err != nil {
		return netip.AddrPort{}, err
	}
	f, refused, err := s.sendSYN(ep, dst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer s.dials.remove(f)
	select {
	case <-connected:
		err = errnoOf(ep.LastError())
	case err = <-refused:
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.done:
	}
	if s.isClosed() {
		err = net.ErrClosed
	}
	return f.Src, err
}

// sendSYN begins to connect ep. It returns the dial's flow, and a channel for its error.
func (s *Stack) sendSYN(ep tcpip.Endpoint, dst netip.AddrPort) (flow.Flow, <-chan error, error) {
	s.dials.begin()
	defer s.dials.begun()
	terr := ep.Connect(toFullAddress(dst))
	if _, started := terr.(*tcpip.ErrConnectStarted); !started {
		if s.isClosed() {
			return flow.Flow{}, nil, net.ErrClosed
		}
		return flow.Flow{}, nil, errnoOf(terr)
	}
	local, err := localAddr(ep)
	if err != nil {
		return flow.Flow{}, nil, err
	}
	f := flow.Flow{Proto: flow.TCP, Src: local, Dst: dst}
	return f, s.dials.add(f), nil
}

// bind binds ep to src if that says anything.
func (s *Stack) bind(ep tcpip.Endpoint, src netip.AddrPort) error {
	full := toFullAddress(src)
	switch {
	case full.Addr.Len() == 0 && full.Port == 0:
		return nil
	case full.Addr.Len() != 0 && !s.any && !s.owns(src.Addr()):
		// gVisor looks only at the NIC, and at sending finds no route.
		return syscall.EADDRNOTAVAIL
	}
	return errnoOf(ep.Bind(full))
}

// pendingDials are the dials that wait for an answer. They learn here of
// ICMPv6 errors that gVisor ignores. The zero value is ready to use.
type pendingDials struct {
	mu      sync.Mutex
	flows   map[flow.Flow]chan error // buffered, never closed
	refused map[netip.Addr]error     // those from these addresses

	// The answer to a SYN may be here before it is known which port that was sent from.
	beginning int                 // dials between begin and begun
	early     map[flow.Flow]error // what came meanwhile about flows that are not known
}

// maxEarly bounds the errors that wait for their dials. One that is lost comes again, with the next SYN.
const maxEarly = 1024

// begin announces a SYN, whose flow add makes known before begun.
func (d *pendingDials) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.beginning++
}

// begun ends what begin began.
func (d *pendingDials) begun() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.beginning--; d.beginning == 0 {
		d.early = nil
	}
}

// add returns a channel for the error of f.
func (d *pendingDials) add(f flow.Flow) <-chan error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flows == nil {
		d.flows = make(map[flow.Flow]chan error)
	}
	c := make(chan error, 1)
	if err := d.refused[f.Src.Addr()]; err != nil {
		c <- err
	} else if err := d.early[f]; err != nil {
		c <- err
	}
	d.flows[f] = c
	return c
}

func (d *pendingDials) remove(f flow.Flow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.flows, f)
}

// refuse is Stack.RefuseDials.
func (d *pendingDials) refuse(local netip.Addr, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused == nil {
		d.refused = make(map[netip.Addr]error)
	}
	d.refused[local] = err
	for f, c := range d.flows {
		if f.Src.Addr() != local {
			continue
		}
		select {
		case c <- err:
		default:
		}
	}
}

// heed fails the dial that p is about, if there is one.
func (d *pendingDials) heed(p flow.Packet) {
	err := errnoOfICMPv6(p)
	if err == nil || p.Inner == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.flows[*p.Inner]; ok {
		select {
		case c <- err:
		default:
		}
		return
	}
	if d.beginning > 0 && len(d.early) < maxEarly {
		if d.early == nil {
			d.early = make(map[flow.Flow]error)
		}
		d.early[*p.Inner] = err
	}
}

func localAddr(ep tcpip.Endpoint) (netip.AddrPort, error) {
	full, terr := ep.GetLocalAddress()
	if terr != nil {
		return netip.AddrPort{}, errnoOf(terr)
	}
	return addrPortFrom(full.Addr, full.Port), nil
}

// checkDial returns why there is no dialing dst.
func (s *Stack) checkDial(dst netip.AddrPort) error {
	switch {
	case s.isClosed():
		return net.ErrClosed
	case !dst.Addr().IsValid(), dst.Addr().IsUnspecified(), dst.Port() == 0:
		return syscall.EADDRNOTAVAIL
	case dst.Addr().Is6() && !s.ipv6:
		return syscall.ENETUNREACH
	}
	return nil
}

// sourceAddr returns src for an error text, nil if the stack was to choose.
func sourceAddr(src netip.AddrPort, conv func(netip.AddrPort) net.Addr) net.Addr {
	if !src.Addr().IsValid() {
		return nil
	}
	return conv(src)
}

// DialUDP returns a conn for datagrams between src and dst. The zero src, or
// its zero address or port, lets the stack choose. ICMP errors about its
// datagrams are errors of its next Read or Write.
func (s *Stack) DialUDP(src, dst netip.AddrPort) (net.Conn, error) {
	src, dst = unmap(src), unmap(dst)
	c, err := s.dialUDP(src, dst)
	if err != nil {
		return nil, opError("dial", "udp", sourceAddr(src, udpAddr), udpAddr(dst), err)
	}
	return c, nil
}

func (s *Stack) dialUDP(src, dst netip.AddrPort) (*udpConn, error) {
	if err := s.checkDial(dst); err != nil {
		return nil, err
	}
	wq := new(waiter.Queue)
	ep, terr := s.gv.NewEndpoint(udp.ProtocolNumber, protocolOf(dst.Addr()), wq)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	err := s.bind(ep, src)
	if err == nil {
		err = errnoOf(ep.Connect(toFullAddress(dst)))
	}
	var local netip.AddrPort
	if err == nil {
		local, err = localAddr(ep)
	}
	if err != nil {
		ep.Close()
		return nil, err
	}
	return s.newUDPConn(ep, wq, local, dst), nil
}
