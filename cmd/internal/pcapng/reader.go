package pcapng

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"
)

// ErrFormat says that a file is no recording.
var ErrFormat = errors.New("neither a pcapng nor a pcap file")

const (
	bufferSize = 1 << 20
	gzipMagic  = "\x1f\x8b"
)

// Reader reads a file from its beginning. It is not safe for concurrent use.
type Reader struct {
	r    *bufio.Reader
	next func() (Packet, error)

	// Of the section that is read.
	order      binary.ByteOrder
	interfaces []described
	skip       bool // it has a version that is not known
}

// described is an interface of a section.
type described struct {
	link   Link
	limit  uint32 // bytes captured of each packet; 0 = no limit
	units  uint64 // of time stamps, per second
	offset int64  // of time stamps, seconds
}

// NewReader reads the head of a file of either format.
func NewReader(r io.Reader) (*Reader, error) {
	b := bufio.NewReaderSize(r, bufferSize)
	if magic, _ := b.Peek(2); string(magic) == gzipMagic {
		zip, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		b = bufio.NewReaderSize(zip, bufferSize)
	}
	magic, err := b.Peek(4)
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("too short for a recording")
	case err != nil:
		return nil, err
	}
	out := &Reader{r: b}
	if binary.BigEndian.Uint32(magic) != blockSection { // a palindrome
		return out, out.beginPcap()
	}
	out.next = out.nextBlock
	head, err := out.head()
	if err != nil {
		return nil, err
	}
	return out, out.section(head)
}

// Next returns the next packet, whose data is the caller's. At the end of the file
// it is io.EOF; in the middle of something it is io.ErrUnexpectedEOF.
func (r *Reader) Next() (Packet, error) { return r.next() }

// block is the head of a block.
type block struct {
	kind uint32
	left int64 // bytes up to the next block that are not read yet
}

// head reads the head of the next block. That of a section says its byte order after
// its length, so it is looked at here.
func (r *Reader) head() (block, error) {
	b, err := r.r.Peek(blockHead + 4)
	if len(b) == 0 {
		return block{}, err
	}
	if len(b) < blockHead+4 { // no block is that short
		return block{}, cut(err)
	}
	if binary.BigEndian.Uint32(b) == blockSection {
		switch uint32(byteOrderMagic) {
		case binary.LittleEndian.Uint32(b[blockHead:]):
			r.order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[blockHead:]):
			r.order = binary.BigEndian
		default:
			return block{}, errors.New("a section has no byte order")
		}
	}
	kind, length := r.order.Uint32(b), r.order.Uint32(b[4:])
	if length < blockHead+blockTail || length%4 != 0 {
		return block{}, fmt.Errorf("a block of %d bytes", length)
	}
	r.r.Discard(blockHead)
	return block{kind: kind, left: int64(length) - blockHead}, nil
}

// cut is the error of a file that ends in the middle of something.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take reads the next bytes of a block.
func (r *Reader) take(b *block, n int) ([]byte, error) {
	if int64(n)+blockTail > b.left {
		return nil, fmt.Errorf("a block of type %d is %d bytes too short", b.kind, int64(n)+blockTail-b.left)
	}
	out := make([]byte, n)
	_, err := io.ReadFull(r.r, out)
	b.left -= int64(n)
	return out, cut(err)
}

// leave skips what is left of a block.
func (r *Reader) leave(b *block) error {
	for b.left > 0 {
		n, err := r.r.Discard(int(min(b.left, bufferSize)))
		b.left -= int64(n)
		if err != nil {
			return cut(err)
		}
	}
	return nil
}

// nextBlock reads up to the next block that is a packet.
func (r *Reader) nextBlock() (Packet, error) {
	for {
		b, err := r.head()
		if err != nil {
			return Packet{}, err
		}
		if b.kind == blockSection {
			if err := r.section(b); err != nil {
				return Packet{}, err
			}
			continue
		}
		p, ok, err := r.inside(&b)
		if err == nil {
			err = r.leave(&b)
		}
		if ok || err != nil {
			return p, err
		}
	}
}

// inside reads a block that is no section; ok says that it is a packet.
func (r *Reader) inside(b *block) (p Packet, ok bool, err error) {
	if r.skip {
		return p, false, nil
	}
	switch b.kind {
	case blockInterface:
		return p, false, r.describe(b)
	case blockPacket, blockOldPacket:
		p, err = r.packet(b)
		return p, true, err
	case blockSimple:
		p, err = r.simple(b)
		return p, true, err
	}
	return p, false, nil
}

// section begins a section.
func (r *Reader) section(b block) error {
	head, err := r.take(&b, 16)
	if err != nil {
		return err
	}
	r.interfaces = nil
	r.skip = r.order.Uint16(head[4:]) != majorVersion
	return r.leave(&b)
}

// describe reads the description of an interface.
func (r *Reader) describe(b *block) error {
	if len(r.interfaces) == maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	head, err := r.take(b, 8)
	if err != nil {
		return err
	}
	i := described{link: Link(r.order.Uint16(head)), limit: r.order.Uint32(head[4:])}
	if b.left > maxOptions {
		return fmt.Errorf("an interface has %d bytes of options", b.left)
	}
	options, err := r.take(b, int(b.left-blockTail))
	if err != nil {
		return err
	}
	resolution := byte(defaultPrecision)
	for code, v := range r.options(options) {
		switch {
		case code == optionTimeResolution && len(v) == 1:
			resolution = v[0]
		case code == optionTimeOffset && len(v) == 8:
			i.offset = int64(r.order.Uint64(v))
		}
	}
	if i.units, err = unitsOf(resolution); err != nil {
		return err
	}
	r.interfaces = append(r.interfaces, i)
	return nil
}

// options yields codes and values up to the end, or up to what is no option.
func (r *Reader) options(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= optionHead {
			code, n := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
			b = b[optionHead:]
			if code == optionEnd || n > len(b) || !yield(code, b[:n]) {
				return
			}
			b = b[min(n+padding(n), len(b)):]
		}
	}
}

// unitsOf returns how many of its units a second has, of an interface's resolution.
func unitsOf(resolution byte) (uint64, error) {
	n := resolution &^ binaryResolution
	switch {
	case resolution&binaryResolution != 0 && n < 64:
		return 1 << n, nil
	case resolution&binaryResolution == 0 && n < 20:
		units := uint64(1)
		for range n {
			units *= 10
		}
		return units, nil
	}
	return 0, fmt.Errorf("an interface has times of resolution %#x", resolution)
}

// at returns the time of a time stamp.
func (i described) at(stamp uint64) time.Time {
	hi, lo := bits.Mul64(stamp%i.units, 1e9)
	ns, _ := bits.Div64(hi, lo, i.units)
	return time.Unix(int64(stamp/i.units)+i.offset, int64(ns))
}

// packet reads a packet, of either type of block.
func (r *Reader) packet(b *block) (Packet, error) {
	head, err := r.take(b, 20)
	if err != nil {
		return Packet{}, err
	}
	id := int(r.order.Uint32(head))
	if b.kind == blockOldPacket { // a counter of losses is beside the number
		id = int(r.order.Uint16(head))
	}
	stamp := uint64(r.order.Uint32(head[4:]))<<32 | uint64(r.order.Uint32(head[8:]))
	p, err := r.data(b, id, r.order.Uint32(head[12:]), r.order.Uint32(head[16:]))
	if err == nil {
		p.Time = r.interfaces[id].at(stamp)
	}
	return p, err
}

// simple reads a packet without a time. It does not say how much of it is there.
func (r *Reader) simple(b *block) (Packet, error) {
	head, err := r.take(b, 4)
	if err != nil {
		return Packet{}, err
	}
	length := r.order.Uint32(head)
	captured := length
	if len(r.interfaces) > 0 && r.interfaces[0].limit != 0 {
		captured = min(captured, r.interfaces[0].limit)
	}
	return r.data(b, 0, uint32(min(int64(captured), b.left-blockTail)), length)
}

// data reads the bytes of a packet.
func (r *Reader) data(b *block, id int, captured, length uint32) (Packet, error) {
	if id >= len(r.interfaces) {
		return Packet{}, fmt.Errorf("a packet of interface %d of %d", id, len(r.interfaces))
	}
	if captured > MaxPacket {
		return Packet{}, fmt.Errorf("a packet of %d bytes", captured)
	}
	data, err := r.take(b, int(captured))
	return Packet{Interface: id, Link: r.interfaces[id].link, Length: int(max(length, captured)), Data: data}, err
}
