package router

import (
	"encoding/binary"
	"net/netip"

	"github.com/borrownet/borrownet/netstack/flow"
)

// ap is netip.MustParseAddrPort.
func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// ipPacket returns an IPv4 or IPv6 packet. The router checks no checksums, so there are none.
func ipPacket(proto flow.Proto, src, dst netip.Addr, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0], b[8], b[9] = 0x45, 64, byte(proto)
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, byte(proto), 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

func tcpPacket(src, dst string, flags uint8) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, ap(src).Port())
	binary.BigEndian.PutUint16(h[2:], ap(dst).Port())
	h[12], h[13] = 5<<4, flags
	return ipPacket(flow.TCP, ap(src).Addr(), ap(dst).Addr(), h)
}

func udpPacket(src, dst string, payload ...byte) []byte {
	h := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(h, ap(src).Port())
	binary.BigEndian.PutUint16(h[2:], ap(dst).Port())
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	return ipPacket(flow.UDP, ap(src).Addr(), ap(dst).Addr(), append(h, payload...))
}

// icmpPacket returns an ICMP or ICMPv6 packet with an identifier.
func icmpPacket(src, dst string, typ byte, id uint16, payload ...byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	h := make([]byte, 8, 8+len(payload))
	h[0] = typ
	binary.BigEndian.PutUint16(h[4:], id)
	proto := flow.ICMP
	if s.Is6() {
		proto = flow.ICMPv6
	}
	return ipPacket(proto, s, d, append(h, payload...))
}

// fragment makes one of an IPv4 packet; offset is in bytes.
func fragment(pkt []byte, id uint16, offset int, more bool) []byte {
	pkt = append([]byte(nil), pkt...)
	binary.BigEndian.PutUint16(pkt[4:], id)
	f := uint16(offset / 8)
	if more {
		f |= 0x2000
	}
	binary.BigEndian.PutUint16(pkt[6:], f)
	return pkt
}

// fragment6 puts a fragment header into an IPv6 packet.
func fragment6(pkt []byte, id uint32, offset int, more bool) []byte {
	f := make([]byte, 8)
	f[0] = pkt[6]
	binary.BigEndian.PutUint16(f[2:], uint16(offset))
	if more {
		f[3] |= 1
	}
	binary.BigEndian.PutUint32(f[4:], id)
	out := append(append(append([]byte(nil), pkt[:40]...), f...), pkt[40:]...)
	out[6] = 44
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}

// withOptions gives an IPv4 packet four bytes of IP options.
func withOptions(pkt []byte) []byte {
	out := append(append(append([]byte(nil), pkt[:20]...), 1, 1, 1, 0), pkt[20:]...)
	out[0] = 0x46
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	return out
}
