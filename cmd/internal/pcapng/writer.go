package pcapng

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Writer writes one section. It is not safe for concurrent use.
type Writer struct {
	w          *bufio.Writer
	interfaces int
	buf        []byte // of the block that is written; kept for the next
}

// Interface is where packets are captured.
type Interface struct {
	Name      string
	Link      Link
	MaxPacket uint32 // bytes captured of each packet at most; 0 = no limit
}

// Statistics are the counters of an interface.
type Statistics struct {
	Time              time.Time // when they were read
	Received, Dropped uint64
	Comment           string // empty = none
}

// NewWriter begins a file that program writes, of packets from interfaces. What is
// written may wait for Flush.
func NewWriter(w io.Writer, program string, interfaces []Interface) (*Writer, error) {
	out := &Writer{w: bufio.NewWriter(w), interfaces: len(interfaces)}
	b := out.begin(blockSection)
	b = binary.LittleEndian.AppendUint32(b, byteOrderMagic)
	b = binary.LittleEndian.AppendUint16(b, majorVersion)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint64(b, unknownLength)
	b = endOptions(appendText(b, optionSectionProgram, program))
	if err := out.end(b); err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		b := out.begin(blockInterface)
		b = binary.LittleEndian.AppendUint16(b, uint16(i.Link))
		b = binary.LittleEndian.AppendUint16(b, 0)
		b = binary.LittleEndian.AppendUint32(b, i.MaxPacket)
		b = appendText(b, optionInterfaceName, i.Name)
		b = endOptions(appendOption(b, optionTimeResolution, []byte{nanosecondsResolution}))
		if err := out.end(b); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Packet writes a packet.
func (w *Writer) Packet(p Packet) error {
	switch {
	case p.Interface < 0 || p.Interface >= w.interfaces:
		return fmt.Errorf("packet of interface %d of %d", p.Interface, w.interfaces)
	case len(p.Data) > MaxPacket || p.Length < len(p.Data):
		return fmt.Errorf("%d bytes of a packet of %d", len(p.Data), p.Length)
	}
	b := w.begin(blockPacket)
	b = binary.LittleEndian.AppendUint32(b, uint32(p.Interface))
	b = appendTime(b, p.Time)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.Data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.Length))
	return w.end(appendPadded(b, p.Data))
}

// Statistics writes the counters of an interface.
func (w *Writer) Statistics(id int, s Statistics) error {
	if id < 0 || id >= w.interfaces {
		return fmt.Errorf("counters of interface %d of %d", id, w.interfaces)
	}
	b := w.begin(blockStatistics)
	b = binary.LittleEndian.AppendUint32(b, uint32(id))
	b = appendTime(b, s.Time)
	b = appendText(b, optionComment, s.Comment)
	b = appendOption(b, optionPacketsReceived, binary.LittleEndian.AppendUint64(nil, s.Received))
	b = appendOption(b, optionPacketsDropped, binary.LittleEndian.AppendUint64(nil, s.Dropped))
	return w.end(endOptions(b))
}

// Flush hands on what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }

// begin returns the head of a block, whose length end fills in.
func (w *Writer) begin(kind uint32) []byte {
	b := binary.LittleEndian.AppendUint32(w.buf[:0], kind)
	return binary.LittleEndian.AppendUint32(b, 0)
}

// end writes a block.
func (w *Writer) end(b []byte) error {
	length := uint32(len(b) + blockTail)
	binary.LittleEndian.PutUint32(b[4:], length)
	b = binary.LittleEndian.AppendUint32(b, length)
	w.buf = b
	_, err := w.w.Write(b)
	return err
}

// appendTime appends a time in nanoseconds, its higher half first.
func appendTime(b []byte, t time.Time) []byte {
	var ns uint64
	if !t.IsZero() {
		ns = uint64(t.UnixNano())
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(ns>>32))
	return binary.LittleEndian.AppendUint32(b, uint32(ns))
}

// appendPadded appends bytes, and zeros up to a multiple of four.
func appendPadded(b, v []byte) []byte {
	return append(append(b, v...), make([]byte, padding(len(v)))...)
}

func padding(n int) int { return -n & 3 }

func appendOption(b []byte, code uint16, v []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
	return appendPadded(b, v)
}

// appendText appends an option that is left out if it is empty, and cut if it is
// longer than an option may be.
func appendText(b []byte, code uint16, text string) []byte {
	if text == "" {
		return b
	}
	return appendOption(b, code, []byte(text[:min(len(text), maxOption)]))
}

func endOptions(b []byte) []byte { return appendOption(b, optionEnd, nil) }
