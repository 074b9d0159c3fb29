package flow

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// TCP flags, as in the flags octet of the TCP header.
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Errors of Parse. They say which part of a packet is wrong.
var (
	ErrTruncated = errors.New("packet shorter than its headers say")
	ErrVersion   = errors.New("neither an IPv4 nor an IPv6 packet")
	ErrHeader    = errors.New("malformed IP header")
	ErrExtension = errors.New("malformed or too many IPv6 extension headers")
)

// A Packet is what Parse found in an IP packet.
type Packet struct {
	// Flow has no ports if Fragment is set.
	Flow Flow
	// TCPFlags is zero unless Flow is a TCP flow and Fragment is not set.
	TCPFlags uint8
	// Acking is what a TCP segment acknowledges, under the same condition.
	Acking Acking
	// ICMPType and ICMPCode are set for ICMP and ICMPv6.
	ICMPType, ICMPCode uint8
	// Fragment reports whether this is a later fragment, whose ports are in
	// the first one. A first fragment is parsed like a whole packet.
	Fragment bool
	// Inner is the flow that an ICMP error is about, as it was sent: from the
	// receiver of the error to whom it could not reach. Nil for all other
	// packets, and for errors that quote too little to tell.
	Inner *Flow
	// Payload is what follows the transport header (the ICMP header has 8
	// bytes), a part of the parsed packet.
	Payload []byte
}

// maxExtensions bounds the IPv6 extension headers of one packet. RFC 8200
// §4.1 recommends an order in which at most one occurs twice: seven in all.
const maxExtensions = 8

// Parse reads the headers of an IPv4 or IPv6 packet. Bytes after the length
// in the IP header are ignored. It checks no checksums.
func Parse(pkt []byte) (Packet, error) {
	var p Packet
	n, err := parseNetwork(pkt, false)
	if err != nil {
		return p, err
	}
	p.Flow = Flow{
		Proto: n.proto,
		Src:   netip.AddrPortFrom(n.src, 0),
		Dst:   netip.AddrPortFrom(n.dst, 0),
	}
	if n.fragment {
		p.Fragment, p.Payload = true, n.payload
		return p, nil
	}
	return p, p.parseTransport(n.payload, false)
}

// network is what an IP header says.
type network struct {
	proto    Proto
	src, dst netip.Addr
	fragment bool // not the first one
	payload  []byte
}

// parseNetwork reads the IP header of pkt. A quoted packet is the beginning
// of one inside an ICMP error: it may be shorter than its header says.
func parseNetwork(pkt []byte, quoted bool) (network, error) {
	if len(pkt) == 0 {
		return network{}, ErrTruncated
	}
	switch pkt[0] >> 4 {
	case 4:
		return parseIPv4(pkt, quoted)
	case 6:
		return parseIPv6(pkt, quoted)
	}
	return network{}, ErrVersion
}

// parseIPv4 reads an IPv4 header (RFC 791 §3.1).
func parseIPv4(pkt []byte, quoted bool) (network, error) {
	if len(pkt) < 20 {
		return network{}, ErrTruncated
	}
	hlen := int(pkt[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(pkt[2:]))
	if hlen < 20 || total < hlen {
		return network{}, ErrHeader
	}
	if len(pkt) < hlen || (len(pkt) < total && !quoted) {
		return network{}, ErrTruncated
	}
	offset := binary.BigEndian.Uint16(pkt[6:]) & 0x1fff
	return network{
		proto:    Proto(pkt[9]),
		src:      netip.AddrFrom4([4]byte(pkt[12:16])),
		dst:      netip.AddrFrom4([4]byte(pkt[16:20])),
		fragment: offset != 0,
		payload:  pkt[hlen:min(total, len(pkt))],
	}, nil
}

// IPv6 extension headers (IANA "IPv6 Extension Header Types").
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAuth        = 51
	extDestination = 60
	extMobility    = 135
	extHIP         = 139
	extShim6       = 140
)

// parseIPv6 reads an IPv6 header and its extension headers (RFC 8200 §3, §4).
func parseIPv6(pkt []byte, quoted bool) (network, error) {
	if len(pkt) < 40 {
		return network{}, ErrTruncated
	}
	total := 40 + int(binary.BigEndian.Uint16(pkt[4:]))
	if len(pkt) < total && !quoted {
		return network{}, ErrTruncated
	}
	n := network{
		// IPv4-mapped addresses have no place on a wire; they are kept as
		// they are, distinct from the IPv4 address they embed.
		src: netip.AddrFrom16([16]byte(pkt[8:24])),
		dst: netip.AddrFrom16([16]byte(pkt[24:40])),
	}
	next, rest := pkt[6], pkt[40:min(total, len(pkt))]
	for range maxExtensions {
		var size int
		switch next {
		case extHopByHop, extRouting, extDestination, extMobility, extHIP, extShim6:
			if len(rest) < 8 {
				return n, ErrTruncated
			}
			size = 8 + 8*int(rest[1])
		case extAuth:
			if len(rest) < 8 {
				return n, ErrTruncated
			}
			size = 8 + 4*int(rest[1])
		case extFragment:
			if len(rest) < 8 {
				return n, ErrTruncated
			}
			size = 8
			if binary.BigEndian.Uint16(rest[2:])>>3 != 0 {
				n.proto, n.fragment, n.payload = Proto(rest[0]), true, rest[8:]
				return n, nil
			}
		default:
			n.proto, n.payload = Proto(next), rest
			return n, nil
		}
		if len(rest) < size {
			return n, ErrTruncated
		}
		next, rest = rest[0], rest[size:]
	}
	return n, ErrExtension
}

// parseTransport completes p from the transport header in b. For a quoted
// packet 8 bytes of it are enough (RFC 792; RFC 4443 quotes more).
func (p *Packet) parseTransport(b []byte, quoted bool) error {
	switch p.Flow.Proto {
	case TCP:
		return p.parseTCP(b, quoted)
	case UDP:
		return p.parseUDP(b, quoted)
	case ICMP:
		if p.Flow.Src.Addr().Is4() {
			return p.parseICMP(b, quoted, isICMPError)
		}
	case ICMPv6:
		if !p.Flow.Src.Addr().Is4() {
			return p.parseICMP(b, quoted, isICMPv6Error)
		}
	}
	p.Payload = b
	return nil
}

func (p *Packet) parseTCP(b []byte, quoted bool) error {
	if quoted && len(b) >= 8 {
		p.setPorts(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
		return nil
	}
	if len(b) < 20 {
		return ErrTruncated
	}
	hlen := int(b[12]>>4) * 4
	if hlen < 20 || len(b) < hlen {
		return ErrTruncated
	}
	p.setPorts(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
	p.TCPFlags = b[13]
	p.Payload = b[hlen:]
	p.Acking = ParseAcking(b[:hlen], len(p.Payload))
	return nil
}

func (p *Packet) parseUDP(b []byte, quoted bool) error {
	if len(b) < 8 {
		return ErrTruncated
	}
	p.setPorts(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
	// A first fragment holds less than the length in its UDP header, so the
	// length can only cut a payload, not refuse it.
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size < 8 && !quoted {
		return ErrTruncated
	}
	p.Payload = b[8:max(8, min(size, len(b)))]
	return nil
}

// Echo types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	icmpEchoReply     = 0
	icmpEchoRequest   = 8
	icmpv6EchoRequest = 128
	icmpv6EchoReply   = 129
)

// isICMPError reports whether ICMP messages of type t quote a packet: they
// are destination unreachable, source quench, redirect, time exceeded and
// parameter problem.
func isICMPError(t uint8) bool {
	return t == 3 || t == 4 || t == 5 || t == 11 || t == 12
}

// isICMPv6Error reports whether ICMPv6 messages of type t are errors (RFC
// 4443 §2.1).
func isICMPv6Error(t uint8) bool { return t < 128 }

func (p *Packet) parseICMP(b []byte, quoted bool, isError func(uint8) bool) error {
	if len(b) < 8 {
		return ErrTruncated
	}
	p.ICMPType, p.ICMPCode = b[0], b[1]
	p.Payload = b[8:]
	switch {
	case p.isEcho():
		id := binary.BigEndian.Uint16(b[4:])
		p.setPorts(id, id)
	case isError(p.ICMPType) && !quoted:
		p.Inner = quotedFlow(b[8:], p.Flow.Src.Addr().Is4())
	}
	return nil
}

func (p *Packet) isEcho() bool {
	if p.Flow.Proto == ICMP {
		return p.ICMPType == icmpEchoRequest || p.ICMPType == icmpEchoReply
	}
	return p.ICMPType == icmpv6EchoRequest || p.ICMPType == icmpv6EchoReply
}

// quotedFlow returns the flow of the packet that begins in b, nil if b does
// not tell. A flow of the other IP version is nobody's flow.
func quotedFlow(b []byte, want4 bool) *Flow {
	n, err := parseNetwork(b, true)
	if err != nil || n.fragment || n.src.Is4() != want4 {
		return nil
	}
	q := Packet{Flow: Flow{
		Proto: n.proto,
		Src:   netip.AddrPortFrom(n.src, 0),
		Dst:   netip.AddrPortFrom(n.dst, 0),
	}}
	if q.parseTransport(n.payload, true) != nil {
		return nil
	}
	return &q.Flow
}

func (p *Packet) setPorts(src, dst uint16) {
	p.Flow.Src = netip.AddrPortFrom(p.Flow.Src.Addr(), src)
	p.Flow.Dst = netip.AddrPortFrom(p.Flow.Dst.Addr(), dst)
}
