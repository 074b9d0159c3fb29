package netns

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

const (
	protoTCP  = 6
	protoUDP  = 17
	flagSYN   = 0x02
	flagSYNAC = 0x12
)

// packet is what the tests look at in an IP packet.
type packet struct {
	proto    byte
	src, dst netip.AddrPort
	flags    byte // TCP
	payload  []byte
	sound    bool // the transport checksum holds
}

// parse reads an IP packet without options or extension headers.
func parse(b []byte) (packet, bool) {
	var p packet
	var src, dst netip.Addr
	var l4 []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.proto, l4 = b[9], b[20:]
	case len(b) >= 40 && b[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.proto, l4 = b[6], b[40:]
	default:
		return p, false
	}
	if len(l4) < 8 {
		return p, false
	}
	p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(l4))
	p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(l4[2:]))
	p.sound = sum(pseudo(src, dst, p.proto, len(l4)), l4) == 0xffff
	switch p.proto {
	case protoUDP:
		p.payload = l4[8:]
	case protoTCP:
		p.flags = l4[13]
	}
	return p, true
}

// pseudo is the sum over the pseudo header (RFC 1071, RFC 8200 §8.1).
func pseudo(src, dst netip.Addr, proto byte, n int) uint32 {
	s := uint32(proto) + uint32(n)
	for _, b := range [][]byte{src.AsSlice(), dst.AsSlice()} {
		for i := 0; i < len(b); i += 2 {
			s += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	return s
}

func sum(s uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// ipPacket makes an IP packet around a transport header whose checksum is at off.
func ipPacket(proto byte, src, dst netip.Addr, l4 []byte, off int) []byte {
	binary.BigEndian.PutUint16(l4[off:], ^sum(pseudo(src, dst, proto, len(l4)), l4))
	if src.Is6() {
		b := make([]byte, 40, 40+len(l4))
		b[0] = 0x60
		binary.BigEndian.PutUint16(b[4:], uint16(len(l4)))
		b[6], b[7] = proto, 64
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
		return append(b, l4...)
	}
	b := make([]byte, 20, 20+len(l4))
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
	b[8], b[9] = 64, proto
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b))
	return append(b, l4...)
}

func udpPacket(src, dst netip.AddrPort, payload []byte) []byte {
	l4 := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(l4, src.Port())
	binary.BigEndian.PutUint16(l4[2:], dst.Port())
	binary.BigEndian.PutUint16(l4[4:], uint16(8+len(payload)))
	return ipPacket(protoUDP, src.Addr(), dst.Addr(), append(l4, payload...), 6)
}

func synPacket(src, dst netip.AddrPort) []byte {
	l4 := make([]byte, 20)
	binary.BigEndian.PutUint16(l4, src.Port())
	binary.BigEndian.PutUint16(l4[2:], dst.Port())
	binary.BigEndian.PutUint32(l4[4:], 1000)
	l4[12], l4[13] = 5<<4, flagSYN
	binary.BigEndian.PutUint16(l4[14:], 65535)
	return ipPacket(protoTCP, src.Addr(), dst.Addr(), l4, 16)
}

// source is what packets come from: a Helper or a Guest.
type source interface {
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	BatchSize() int
	Close() error
}

// expect reads packets from the namespace until one matches.
func expect(t *testing.T, h source, what string, match func(packet) bool) packet {
	t.Helper()
	type result struct {
		p   packet
		err error
	}
	found := make(chan result, 1)
	go func() {
		const offset = 16
		bufs := make([][]byte, h.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, offset+65536)
		}
		sizes := make([]int, len(bufs))
		for {
			n, err := h.Read(bufs, sizes, offset)
			if err != nil {
				found <- result{err: err}
				return
			}
			for i := range n {
				if p, ok := parse(bufs[i][offset : offset+sizes[i]]); ok && match(p) {
					found <- result{p: p}
					return
				}
			}
		}
	}()
	select {
	case r := <-found:
		if r.err != nil {
			t.Fatalf("waiting for %s: %v", what, r.err)
		}
		return r.p
	case <-time.After(patience):
		h.Close()
		<-found
		t.Fatalf("no packet: %s", what)
	}
	return packet{}
}
