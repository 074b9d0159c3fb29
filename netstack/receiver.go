package netstack

import (
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/borrownet/borrownet/netstack/flow"
)

// A Receiver gets the datagrams of one flow without a socket: nobody has to be woken up to read them.
type Receiver struct {
	Local netip.AddrPort

	stack *Stack
	flow  flow.Flow // as it arrives
	port  ports.Reservation
	h     func(payload []byte, err error)
}

// udpReceivers are a stack's by their flows. The zero value is ready to use.
type udpReceivers struct {
	mu     sync.RWMutex
	byFlow map[flow.Flow]*Receiver
}

// ReceiveUDP calls h for each datagram that remote sends to the returned Receiver's Local, a free port of local, and for each
// ICMP error about a datagram from there. It is called in the goroutine that delivers the packet: h must not block, and payload
// is valid only during the call. AppendUDP makes the packets for the other direction.
func (s *Stack) ReceiveUDP(local netip.Addr, remote netip.AddrPort, h func(payload []byte, err error)) (*Receiver, error) {
	src, remote := netip.AddrPortFrom(local.Unmap(), 0), unmap(remote)
	r, err := s.receiveUDP(src.Addr(), remote, h)
	if err != nil {
		return nil, opError("listen", "udp", udpAddr(src), udpAddr(remote), err)
	}
	return r, nil
}

func (s *Stack) receiveUDP(local netip.Addr, remote netip.AddrPort, h func(payload []byte, err error)) (*Receiver, error) {
	if err := s.checkDial(remote); err != nil {
		return nil, err
	}
	if local.Is4() != remote.Addr().Is4() || !s.any && !s.owns(local) {
		return nil, syscall.EADDRNOTAVAIL
	}
	r := &Receiver{stack: s, h: h, port: ports.Reservation{
		Networks: []tcpip.NetworkProtocolNumber{protocolOf(local)}, Transport: udp.ProtocolNumber, Addr: toAddress(local),
	}}
	port, terr := s.gv.ReservePort(s.gv.SecureRNG(), r.port, nil)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	r.port.Port, r.Local = port, netip.AddrPortFrom(local, port)
	r.flow = flow.Flow{Proto: flow.UDP, Src: remote, Dst: r.Local}
	s.receivers.add(r)
	return r, nil
}

// Close frees the port. A call of the handler may still be under way.
func (r *Receiver) Close() {
	if r.stack.receivers.remove(r) {
		r.stack.gv.ReleasePort(r.port)
	}
}

func (u *udpReceivers) add(r *Receiver) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byFlow == nil {
		u.byFlow = make(map[flow.Flow]*Receiver)
	}
	u.byFlow[r.flow] = r
}

// remove reports whether r was there.
func (u *udpReceivers) remove(r *Receiver) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byFlow[r.flow] != r {
		return false
	}
	delete(u.byFlow, r.flow)
	return true
}

// of returns the handler of f, or nil.
func (u *udpReceivers) of(f flow.Flow) func(payload []byte, err error) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	if r := u.byFlow[f]; r != nil {
		return r.h
	}
	return nil
}

// take hands pkt to its receiver and reports whether it has one. Nobody else can have the port.
func (u *udpReceivers) take(pkt []byte) bool {
	f, payload, ok := Datagram(pkt)
	if !ok {
		return false
	}
	h := u.of(f)
	if h == nil {
		return false
	}
	h(payload, nil)
	return true
}

// heed tells the receiver whose datagram p, an ICMP packet, is about.
func (u *udpReceivers) heed(p flow.Packet) {
	if p.Inner == nil || p.Inner.Proto != flow.UDP {
		return
	}
	err := errnoOfICMP(p)
	if err == nil {
		return
	}
	if h := u.of(flow.Flow{Proto: flow.UDP, Src: p.Inner.Dst, Dst: p.Inner.Src}); h != nil {
		h(nil, err)
	}
}
