package netstack

import (
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"

	"github.com/borrownet/borrownet/netstack/flow"
)

// An Echo is an ICMP or ICMPv6 echo request.
type Echo struct {
	Src, Dst netip.Addr
	ID, Seq  uint16
	Payload  []byte
}

// ForwardEcho calls h for each echo request to an address that is not the
// stack's own, in the goroutine that delivers it: h must not block, and
// Payload is valid only during the call. Without ForwardEcho such requests
// are not answered.
func (s *Stack) ForwardEcho(h func(Echo)) { s.onEcho.Store(&h) }

// handleEcho4 takes ICMP messages that matched no endpoint.
func (s *Stack) handleEcho4(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.ICMPv4(pkt.TransportHeader().Slice())
	if len(h) < header.ICMPv4MinimumSize || h.Type() != header.ICMPv4Echo {
		return false
	}
	return s.handleEcho(id, pkt, h.Ident(), h.Sequence())
}

// handleEcho6 takes ICMPv6 messages that matched no endpoint.
func (s *Stack) handleEcho6(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.ICMPv6(pkt.TransportHeader().Slice())
	if len(h) < header.ICMPv6EchoMinimumSize || h.Type() != header.ICMPv6EchoRequest {
		return false
	}
	return s.handleEcho(id, pkt, h.Ident(), h.Sequence())
}

// handleEcho reports whether an echo request was not for the stack itself,
// which gVisor answers.
func (s *Stack) handleEcho(id stack.TransportEndpointID, pkt *stack.PacketBuffer, ident, seq uint16) bool {
	dst := addrFrom(id.LocalAddress)
	if s.owns(dst) {
		return false
	}
	h := s.onEcho.Load()
	payload, ok := pkt.Data().PullUp(pkt.Data().Size())
	if h == nil || !ok {
		return true
	}
	s.counts.echoIn.Add(1)
	(*h)(Echo{Src: addrFrom(id.RemoteAddress), Dst: dst, ID: ident, Seq: seq, Payload: payload})
	return true
}

// SendEchoReply answers e, which is as ForwardEcho gave it: the reply goes
// from e.Dst to e.Src. It never blocks: without room in the link the error is
// ENOBUFS.
func (s *Stack) SendEchoReply(e Echo) error {
	if err := s.sendEchoReply(e); err != nil {
		return opError("reply", "icmp", &net.IPAddr{IP: e.Dst.AsSlice()}, &net.IPAddr{IP: e.Src.AsSlice()}, err)
	}
	s.counts.echoOut.Add(1)
	return nil
}

func (s *Stack) sendEchoReply(e Echo) error {
	if e.Dst.Is4() != e.Src.Is4() {
		return syscall.EINVAL
	}
	if len(e.Payload) > maxDatagram {
		return syscall.EMSGSIZE
	}
	if e.Dst.Is4() {
		hdr := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize))
		hdr.SetType(header.ICMPv4EchoReply)
		hdr.SetIdent(e.ID)
		hdr.SetSequence(e.Seq)
		return s.sendICMP(e.Dst, e.Src, hdr, e.Payload)
	}
	hdr := header.ICMPv6(make([]byte, header.ICMPv6EchoMinimumSize))
	hdr.SetType(header.ICMPv6EchoReply)
	hdr.SetIdent(e.ID)
	hdr.SetSequence(e.Seq)
	return s.sendICMP(e.Dst, e.Src, hdr, e.Payload)
}

// SendUnreachable tells f.Src that its datagram f, of UDP, did not reach f.Dst,
// by the ICMP error that says err's errno: port unreachable if there is none
// better, nothing for a timeout. It never blocks: without room in the link the
// error is ENOBUFS.
func (s *Stack) SendUnreachable(f flow.Flow, err error) error {
	how := refusalFor(err)
	if how == silence {
		return nil
	}
	if err := s.sendUnreachableUDP(f, how); err != nil {
		return opError("tell unreachable", "udp", udpAddr(f.Dst), udpAddr(f.Src), err)
	}
	return nil
}

func (s *Stack) sendUnreachableUDP(f flow.Flow, how refusal) error {
	if f.Proto != flow.UDP {
		return syscall.EPROTONOSUPPORT
	}
	if f.Src.Addr().Is4() != f.Dst.Addr().Is4() {
		return syscall.EINVAL
	}
	return s.sendUnreachable(f, how, quoteUDP(f))
}

// quoteUDP returns the headers of a datagram of f with an empty payload.
// Kernels read no more than addresses and ports of it.
func quoteUDP(f flow.Flow) []byte {
	src, dst := toAddress(f.Src.Addr()), toAddress(f.Dst.Addr())
	var pkt []byte
	if f.Src.Addr().Is4() {
		pkt = make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize)
		ip := header.IPv4(pkt)
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(pkt)), TTL: 64,
			Protocol: uint8(flow.UDP), SrcAddr: src, DstAddr: dst,
		})
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		pkt = make([]byte, header.IPv6MinimumSize+header.UDPMinimumSize)
		header.IPv6(pkt).Encode(&header.IPv6Fields{
			PayloadLength: header.UDPMinimumSize, TransportProtocol: header.UDPProtocolNumber,
			HopLimit: 64, SrcAddr: src, DstAddr: dst,
		})
	}
	header.UDP(pkt[len(pkt)-header.UDPMinimumSize:]).Encode(&header.UDPFields{
		SrcPort: f.Src.Port(), DstPort: f.Dst.Port(), Length: header.UDPMinimumSize,
	})
	return pkt
}

// sendUnreachable sends the ICMP destination unreachable message for how about
// the packet that begins with quoted, of the flow f, as from f.Dst itself.
// Linux looks for the socket by the quoted addresses and ports, and for TCP
// wants the quoted sequence number to be one it has sent (RFC 5927 §4.1).
func (s *Stack) sendUnreachable(f flow.Flow, how refusal, quoted []byte) error {
	if f.Dst.Addr().Is4() {
		hdr := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize))
		hdr.SetType(header.ICMPv4DstUnreachable)
		hdr.SetCode(how.icmpv4Code())
		return s.sendICMP(f.Dst.Addr(), f.Src.Addr(), hdr, quoted)
	}
	hdr := header.ICMPv6(make([]byte, header.ICMPv6DstUnreachableMinimumSize))
	hdr.SetType(header.ICMPv6DstUnreachable)
	hdr.SetCode(how.icmpv6Code())
	return s.sendICMP(f.Dst.Addr(), f.Src.Addr(), hdr, quoted)
}

// sendICMP sends an ICMP message, of the version of its addresses, whose
// checksum is not set yet.
func (s *Stack) sendICMP(src, dst netip.Addr, hdr, payload []byte) error {
	proto := icmp.ProtocolNumber4
	if dst.Is6() {
		proto = icmp.ProtocolNumber6
	}
	return s.sendPacket(src, dst, proto, hdr, payload, func(r *stack.Route, hdr []byte, sum uint16) {
		if proto == icmp.ProtocolNumber4 {
			h := header.ICMPv4(hdr)
			h.SetChecksum(header.ICMPv4Checksum(h, sum))
			return
		}
		h := header.ICMPv6(hdr)
		h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
			Header: h, Src: r.LocalAddress(), Dst: r.RemoteAddress(),
			PayloadCsum: sum, PayloadLen: len(payload),
		}))
	})
}

// sendPacket sends one packet, in fragments if it is bigger than the MTU.
// setChecksum completes hdr, which is the transport header in the packet; sum
// is the payload's checksum.
func (s *Stack) sendPacket(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, hdr, payload []byte, setChecksum func(r *stack.Route, hdr []byte, sum uint16)) error {
	switch {
	case s.isClosed():
		return net.ErrClosed
	case dst.Is6() && !s.ipv6:
		return syscall.ENETUNREACH
	}
	route, terr := s.gv.FindRoute(nicID, toAddress(src), toAddress(dst), protocolOf(dst), false)
	if terr != nil {
		return errnoOf(terr)
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + len(hdr),
		Payload:            buffer.MakeWithData(payload),
	})
	defer pkt.DecRef()
	sum := pkt.Data().Checksum()
	h := pkt.TransportHeader().Push(len(hdr))
	copy(h, hdr)
	setChecksum(route, h, sum)
	pkt.TransportProtocolNumber = proto
	terr = route.WritePacket(stack.NetworkHeaderParams{
		Protocol: proto,
		TTL:      route.DefaultTTL(),
		TOS:      stack.DefaultTOS,
	}, pkt)
	if terr != nil && s.isClosed() {
		return net.ErrClosed
	}
	return errnoOf(terr)
}
