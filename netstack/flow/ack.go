package flow

import "encoding/binary"

// An Acking is what a TCP segment acknowledges. The zero value is of a packet that does not.
type Acking struct {
	Seq, Ack uint32 // the numbers in the header
	// Pure reports whether the segment acknowledges and does nothing else: it has no data, no other flag, and names no
	// range that has arrived out of order.
	Pure bool
}

// ParseAcking reads a TCP header, of at least 20 bytes, that payload bytes of data follow.
func ParseAcking(header []byte, payload int) Acking {
	flags := header[13]
	return Acking{
		Seq:  binary.BigEndian.Uint32(header[4:]),
		Ack:  binary.BigEndian.Uint32(header[8:]),
		Pure: flags == ACK && payload == 0 && plainOptions(header[20:]),
	}
}

// plainOptions reports whether TCP options are none, or a timestamp as everybody aligns it (RFC 7323 appendix A).
func plainOptions(b []byte) bool {
	return len(b) == 0 || len(b) == 12 && [4]byte(b) == [4]byte{1, 1, 8, 10}
}

// Supersedes reports whether a, sent after old in the same flow, says all that old says. Data does not, though it
// acknowledges too: who has no room for it does not heed the window in its header either, and two that are full would
// wait for each other. A probe, whose sequence number is that of a byte sent before, is not superseded: it asks for an answer.
func (a Acking) Supersedes(old Acking) bool {
	return old.Pure && a.Pure && a.Seq == old.Seq && int32(a.Ack-old.Ack) >= 0
}
