package netstack_test

import (
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/borrownet/borrownet/netstack/flow"
)

func tcpPort(a net.Addr) uint16 { return a.(*net.TCPAddr).AddrPort().Port() }

// packet4 returns an IPv4 packet with the transport header and payload in t.
func packet4(src, dst netip.Addr, proto flow.Proto, t []byte) []byte {
	pkt := make([]byte, header.IPv4MinimumSize, header.IPv4MinimumSize+len(t))
	ip := header.IPv4(pkt)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(pkt) + len(t)), TTL: 64, Protocol: uint8(proto),
		SrcAddr: tcpip.AddrFromSlice(src.AsSlice()), DstAddr: tcpip.AddrFromSlice(dst.AsSlice()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	return append(pkt, t...)
}

// segment returns a TCP segment without a payload.
func segment(src, dst netip.Addr, srcPort, dstPort uint16, flags header.TCPFlags) []byte {
	h := header.TCP(make([]byte, header.TCPMinimumSize))
	h.Encode(&header.TCPFields{
		SrcPort: srcPort, DstPort: dstPort, SeqNum: 1, AckNum: 1,
		DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 1000,
	})
	return packet4(src, dst, flow.TCP, h)
}

func datagram(src, dst netip.Addr, srcPort, dstPort uint16, payload string) []byte {
	h := header.UDP(make([]byte, header.UDPMinimumSize))
	h.Encode(&header.UDPFields{SrcPort: srcPort, DstPort: dstPort, Length: uint16(len(h) + len(payload))})
	return packet4(src, dst, flow.UDP, append(h, payload...))
}

func icmpMessage(src, dst netip.Addr, kind header.ICMPv4Type, code header.ICMPv4Code, mtu uint16, payload []byte) []byte {
	h := header.ICMPv4(append(make([]byte, header.ICMPv4MinimumSize), payload...))
	h.SetType(kind)
	h.SetCode(code)
	h.SetMTU(mtu)
	h.SetChecksum(header.ICMPv4Checksum(h, 0))
	return packet4(src, dst, flow.ICMP, h)
}

// echoRequest returns an echo request with identifier 0x1234, sequence number
// 7 and 1000 zero bytes.
func echoRequest(src, dst netip.Addr) []byte {
	h := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+1000))
	h.SetType(header.ICMPv4Echo)
	h.SetIdent(0x1234)
	h.SetSequence(7)
	h.SetChecksum(header.ICMPv4Checksum(h, 0))
	return packet4(src, dst, flow.ICMP, h)
}

// tooBig returns the ICMP message with which dst is told that its segment from
// srcPort, to dstPort of src's side, was too big.
func tooBig(sender, other netip.Addr, srcPort, dstPort uint16) []byte {
	quoted := segment(sender, other, srcPort, dstPort, 0x10)
	return icmpMessage(other, sender, header.ICMPv4DstUnreachable, header.ICMPv4FragmentationNeeded, 1300, quoted)
}

// echoRequest6 is echoRequest for IPv6.
func echoRequest6(src, dst netip.Addr) []byte {
	from, to := tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice())
	h := header.ICMPv6(make([]byte, header.ICMPv6EchoMinimumSize+1000))
	h.SetType(header.ICMPv6EchoRequest)
	h.SetIdent(0x1234)
	h.SetSequence(7)
	h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: h, Src: from, Dst: to}))
	pkt := make([]byte, header.IPv6MinimumSize)
	header.IPv6(pkt).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(h)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 64, SrcAddr: from, DstAddr: to,
	})
	return append(pkt, h...)
}
