package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// How a pcap file begins: its times are in microseconds or in nanoseconds.
const (
	pcapMicroseconds = 0xa1b2c3d4
	pcapNanoseconds  = 0xa1b23c4d
	pcapHead         = 24
	pcapPacketHead   = 16
)

// beginPcap reads the head of a file of the older format.
func (r *Reader) beginPcap() error {
	head := make([]byte, pcapHead)
	if _, err := io.ReadFull(r.r, head); err != nil {
		return ErrFormat
	}
	unit := time.Duration(0)
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(head) {
		case pcapMicroseconds:
			r.order, unit = order, time.Microsecond
		case pcapNanoseconds:
			r.order, unit = order, time.Nanosecond
		}
	}
	if unit == 0 {
		return ErrFormat
	}
	link := Link(r.order.Uint32(head[20:])) // above it is what belongs to frames with checksums
	r.next = func() (Packet, error) { return r.nextPcap(link, unit) }
	return nil
}

func (r *Reader) nextPcap(link Link, unit time.Duration) (Packet, error) {
	var head [pcapPacketHead]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return Packet{}, err // io.EOF if there is none
	}
	captured := r.order.Uint32(head[8:])
	if captured > MaxPacket {
		return Packet{}, fmt.Errorf("a packet of %d bytes", captured)
	}
	data := make([]byte, captured)
	if _, err := io.ReadFull(r.r, data); err != nil {
		return Packet{}, cut(err)
	}
	return Packet{
		Time: time.Unix(int64(r.order.Uint32(head[:])), int64(r.order.Uint32(head[4:]))*int64(unit)),
		Link: link, Length: int(max(r.order.Uint32(head[12:]), captured)), Data: data,
	}, nil
}
