package netstack

import (
	"math"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/borrownet/borrownet/netstack/flow"
)

// AppendUDP appends an IP packet with one datagram to b: for what is too quick for the stack and the goroutine that reads it.
// The addresses are of one family, and payload is no longer than a datagram's.
func AppendUDP(b []byte, src, dst netip.AddrPort, payload []byte) []byte {
	src, dst = unmap(src), unmap(dst)
	from, to := toAddress(src.Addr()), toAddress(dst.Addr())
	length := header.UDPMinimumSize + len(payload)
	ipSize := header.IPv6MinimumSize
	if dst.Addr().Is4() {
		ipSize = header.IPv4MinimumSize
	}
	start := len(b)
	b = append(b, make([]byte, ipSize+header.UDPMinimumSize)...)
	b = append(b, payload...)
	pkt := b[start:]
	if dst.Addr().Is4() {
		// Never cut, so it needs no ID (RFC 6864 §4).
		ip := header.IPv4(pkt)
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(pkt)), Flags: header.IPv4FlagDontFragment, TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: from, DstAddr: to,
		})
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		header.IPv6(pkt).Encode(&header.IPv6Fields{
			PayloadLength: uint16(length), TransportProtocol: header.UDPProtocolNumber, HopLimit: 64, SrcAddr: from, DstAddr: to,
		})
	}
	udp := header.UDP(pkt[ipSize:])
	udp.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(length)})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, from, to, uint16(length))
	udp.SetChecksum(udpChecksum(udp.CalculateChecksum(checksum.Checksum(udp.Payload(), sum))))
	return b
}

// Datagram returns the flow and the payload of pkt if that is a whole UDP datagram with nothing unusual in its headers: what is
// too quick for the stack can do without it. As everywhere here, no checksum is checked.
func Datagram(pkt []byte) (f flow.Flow, payload []byte, ok bool) {
	var src, dst netip.Addr
	switch {
	case len(pkt) >= header.IPv4MinimumSize && pkt[0] == 4<<4|header.IPv4MinimumSize/4:
		ip := header.IPv4(pkt)
		size := int(ip.TotalLength())
		if ip.Protocol() != uint8(header.UDPProtocolNumber) || ip.More() || ip.FragmentOffset() != 0 || size > len(pkt) || size < header.IPv4MinimumSize {
			return f, nil, false
		}
		src, dst = netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20]))
		payload = pkt[header.IPv4MinimumSize:size]
	case len(pkt) >= header.IPv6MinimumSize && pkt[0]>>4 == 6:
		ip := header.IPv6(pkt)
		size := header.IPv6MinimumSize + int(ip.PayloadLength())
		if ip.NextHeader() != uint8(header.UDPProtocolNumber) || size > len(pkt) {
			return f, nil, false
		}
		src, dst = netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40]))
		payload = pkt[header.IPv6MinimumSize:size]
	default:
		return f, nil, false
	}
	udp := header.UDP(payload)
	if len(udp) < header.UDPMinimumSize || int(udp.Length()) < header.UDPMinimumSize || int(udp.Length()) > len(udp) {
		return f, nil, false
	}
	f = flow.Flow{Proto: flow.UDP, Src: netip.AddrPortFrom(src, udp.SourcePort()), Dst: netip.AddrPortFrom(dst, udp.DestinationPort())}
	return f, udp[header.UDPMinimumSize:udp.Length()], true
}

// udpChecksum returns what stands for sum in a datagram: zero would say that there is no checksum (RFC 768).
func udpChecksum(sum uint16) uint16 {
	if sum == math.MaxUint16 {
		return sum
	}
	return ^sum
}
