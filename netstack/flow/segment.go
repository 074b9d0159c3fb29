package flow

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// ErrNoSegment says that a packet is sound but has no TCP header in it.
var ErrNoSegment = errors.New("no TCP segment")

// A Segment is a TCP segment as a capture shows it.
type Segment struct {
	Flow     Flow
	Seq, Ack uint32
	Flags    uint8
	// Payload is a part of the parsed packet. Cut counts what the packet had
	// beyond it: captures may shorten packets.
	Payload []byte
	Cut     int
}

// ParseSegment reads the TCP segment in an IP packet that may have been cut
// behind its TCP header. Like Parse it trusts nothing and checks no checksums.
func ParseSegment(pkt []byte) (Segment, error) {
	n, err := parseNetwork(pkt, true)
	switch {
	case err != nil:
		return Segment{}, err
	case n.proto != TCP || n.fragment:
		return Segment{}, ErrNoSegment
	case len(n.payload) < 20:
		return Segment{}, ErrTruncated
	}
	b := n.payload
	hlen := int(b[12]>>4) * 4
	if hlen < 20 || len(b) < hlen {
		return Segment{}, ErrTruncated
	}
	return Segment{
		Flow: Flow{
			Proto: TCP,
			Src:   netip.AddrPortFrom(n.src, binary.BigEndian.Uint16(b)),
			Dst:   netip.AddrPortFrom(n.dst, binary.BigEndian.Uint16(b[2:])),
		},
		Seq:     binary.BigEndian.Uint32(b[4:]),
		Ack:     binary.BigEndian.Uint32(b[8:]),
		Flags:   b[13],
		Payload: b[hlen:],
		Cut:     max(0, lengthOf(pkt)-len(pkt)),
	}, nil
}

// lengthOf returns the length of pkt that its IP header says.
func lengthOf(pkt []byte) int {
	if pkt[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(pkt[2:]))
	}
	return 40 + int(binary.BigEndian.Uint16(pkt[4:]))
}
