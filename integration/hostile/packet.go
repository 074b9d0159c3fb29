package main

import (
	"encoding/binary"
	"net/netip"
)

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17

	sourcePort = 40000
)

// tcp4 builds a TCP segment without payload.
func tcp4(src, dst netip.Addr, port uint16, flags byte) []byte {
	seg := make([]byte, 20)
	binary.BigEndian.PutUint16(seg[0:], sourcePort)
	binary.BigEndian.PutUint16(seg[2:], port)
	binary.BigEndian.PutUint32(seg[4:], 1)
	seg[12] = 5 << 4
	seg[13] = flags
	binary.BigEndian.PutUint16(seg[14:], 65535)
	binary.BigEndian.PutUint16(seg[16:], transportChecksum(src, dst, protoTCP, seg))
	return ip4(src, dst, protoTCP, seg)
}

// udp4 builds a datagram whose payload says what it is.
func udp4(src, dst netip.Addr, port uint16) []byte {
	payload := "attack"
	seg := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(seg[0:], sourcePort)
	binary.BigEndian.PutUint16(seg[2:], port)
	binary.BigEndian.PutUint16(seg[4:], uint16(8+len(payload)))
	seg = append(seg, payload...)
	binary.BigEndian.PutUint16(seg[6:], transportChecksum(src, dst, protoUDP, seg))
	return ip4(src, dst, protoUDP, seg)
}

// echo4 builds an ICMP echo request.
func echo4(src, dst netip.Addr) []byte {
	msg := []byte{8, 0, 0, 0, 0, 1, 0, 1}
	binary.BigEndian.PutUint16(msg[2:], checksum(0, msg))
	return ip4(src, dst, protoICMP, msg)
}

// ip4 puts an IPv4 header (RFC 791) before payload.
func ip4(src, dst netip.Addr, proto byte, payload []byte) []byte {
	h := make([]byte, 20, 20+len(payload))
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(0, h))
	return append(h, payload...)
}

func transportChecksum(src, dst netip.Addr, proto byte, seg []byte) uint16 {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = append(pseudo, 0, proto, byte(len(seg)>>8), byte(len(seg)))
	return checksum(^checksum(0, pseudo), seg)
}

// checksum is the Internet checksum (RFC 1071) of b, continued from sum.
func checksum(sum uint16, b []byte) uint16 {
	t := uint32(sum)
	for i := 0; i+1 < len(b); i += 2 {
		t += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		t += uint32(b[len(b)-1]) << 8
	}
	for t>>16 != 0 {
		t = t&0xffff + t>>16
	}
	return ^uint16(t)
}
