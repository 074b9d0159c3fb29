package capture

import (
	"encoding/binary"
	"net/netip"

	"github.com/borrownet/borrownet/netstack/flow"
)

const protocolTCP = 6

// ends are those of a flow, from the one that opened it.
type ends struct{ client, server netip.AddrPort }

// segment is what a Queue has to know of a TCP segment.
type segment struct {
	ends
	fromClient bool
	flags      uint8 // as in package flow
	seq, ack   uint32
	payload    int // bytes on the wire
}

// opens reports whether s asks for a connection.
func (s *segment) opens() bool {
	return s.fromClient && s.flags&(flow.SYN|flow.ACK|flow.RST) == flow.SYN
}

// consents reports whether s is the server's answer to who asks for a connection.
func (s *segment) consents() bool {
	return !s.fromClient && s.flags&(flow.SYN|flow.ACK|flow.RST) == flow.SYN|flow.ACK
}

// from returns the sequence number of the first byte that s carries, or that would come next.
func (s *segment) from() uint32 {
	if s.flags&flow.SYN != 0 {
		return s.seq + 1
	}
	return s.seq
}

// parse reads the headers of p, which may be cut behind them. server tells servers that are captured.
func parse(p Packet, server func(iface uint8, addr netip.Addr, port uint16) bool) (s segment, ok bool) {
	b, total := p.Data, 0
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		head := int(b[0]&0x0f) * 4
		total = int(binary.BigEndian.Uint16(b[2:]))
		if total == 0 {
			total = p.Wire // longer than the field can say: Linux's BIG TCP
		}
		if head < 20 || b[9] != protocolTCP || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 || len(b) < head {
			return s, false
		}
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		b, total = b[head:], total-head
	case len(b) >= 40 && b[0]>>4 == 6:
		if b[6] != protocolTCP {
			return s, false
		}
		total = int(binary.BigEndian.Uint16(b[4:]))
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		b = b[40:]
	default:
		return s, false
	}
	if len(b) < 20 {
		return s, false
	}
	head := int(b[12]>>4) * 4
	if head < 20 || total < head {
		return s, false
	}
	from := netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	to := netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	s = segment{flags: b[13], seq: binary.BigEndian.Uint32(b[4:]), ack: binary.BigEndian.Uint32(b[8:]), payload: total - head}
	switch {
	case server(p.Iface, to.Addr(), to.Port()):
		s.ends, s.fromClient = ends{from, to}, true
	case server(p.Iface, from.Addr(), from.Port()):
		s.ends = ends{to, from}
	default:
		return s, false
	}
	return s, true
}
