// Package http2 finds HTTP/2 messages in streams of bytes (RFC 9113): which streams a
// connection carries and what is said on each. It keeps no byte of a body, answers
// nothing and needs no network.
package http2

import (
	"encoding/binary"
	"errors"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// MaxHead bounds the head of a message, and its trailers: as bytes, and as the fields
// that those stand for.
const MaxHead = 256 << 10

// maxTable bounds the memory of compressed fields that the other side may have granted.
const maxTable = 1 << 20

// frameHead is the length of what stands before a frame's payload.
const frameHead = 9

// A Field is one of a message's head or trailers.
type Field = hpack.HeaderField

// Events are told what one side of a connection says, in its order. What they are given
// is theirs.
type Events interface {
	// Head gets the head of a message, or its trailers. end: nothing follows.
	Head(stream uint32, fields []Field, end bool)
	// Data gets a part of a body, which may be empty. end: nothing follows.
	Data(stream uint32, b []byte, end bool)
	// Reset says that the stream is given up.
	Reset(stream uint32)
}

// ErrMalformed says that bytes are not HTTP/2, or too much of it. Nothing can be made of
// what follows, since fields are compressed by what was said before.
var ErrMalformed = errors.New("malformed HTTP/2")

// A Decoder reads what one side of a connection says. It is used by one goroutine at a
// time.
type Decoder struct {
	to      Events
	preface string // what is to come of it
	fields  *hpack.Decoder
	err     error // nothing can be made of what follows

	head [frameHead]byte // of the frame at hand
	have int             // bytes of head
	left int             // bytes of its payload to come
	buf  []byte          // its payload, of those that are needed whole
	pad  int             // bytes of padding at its end; -1 = the byte that says how many is to come

	block []byte // fields of a head that is not complete
	open  uint32 // the stream that they belong to; 0 = none is
	ends  bool   // and whether it ends with them
	push  bool   // and whether they are those of a promise
}

// NewDecoder returns a Decoder that tells to what a side says: the client's, which
// begins with the preface, or the server's.
func NewDecoder(to Events, client bool) *Decoder {
	d := &Decoder{to: to, fields: hpack.NewDecoder(4096, nil)}
	d.fields.SetAllowedMaxDynamicTableSize(maxTable)
	d.fields.SetMaxStringLength(MaxHead)
	if client {
		d.preface = http2.ClientPreface
	}
	return d
}

// Decode takes the next bytes. After an error it takes none.
func (d *Decoder) Decode(b []byte) error {
	for len(b) > 0 && d.err == nil {
		switch {
		case d.preface != "":
			n := min(len(b), len(d.preface))
			if string(b[:n]) != d.preface[:n] {
				d.err = ErrMalformed
			}
			b, d.preface = b[n:], d.preface[n:]
		case d.have < frameHead:
			n := copy(d.head[d.have:], b)
			d.have += n
			b = b[n:]
			if d.have == frameHead {
				d.err = d.begin()
			}
		default:
			n := min(len(b), d.left)
			d.left -= n
			d.err = d.payload(b[:n])
			b = b[n:]
		}
	}
	return d.err
}

func (d *Decoder) kind() http2.FrameType     { return http2.FrameType(d.head[3]) }
func (d *Decoder) has(flag http2.Flags) bool { return http2.Flags(d.head[4])&flag != 0 }
func (d *Decoder) stream() uint32            { return binary.BigEndian.Uint32(d.head[5:]) & (1<<31 - 1) }

// begin takes the head of a frame.
func (d *Decoder) begin() error {
	d.left = int(d.head[0])<<16 | int(d.head[1])<<8 | int(d.head[2])
	d.buf, d.pad = nil, 0
	if !d.fits() {
		return ErrMalformed
	}
	if d.kind() == http2.FrameData && d.has(http2.FlagDataPadded) {
		d.pad = -1
	}
	if d.left == 0 {
		return d.payload(nil)
	}
	return nil
}

// fits reports whether the frame may stand where it does, and is not too long.
func (d *Decoder) fits() bool {
	if d.open != 0 { // RFC 9113 §6.10: nothing comes between the frames of a head
		return d.kind() == http2.FrameContinuation && d.stream() == d.open && d.left <= MaxHead-len(d.block)
	}
	switch d.kind() {
	case http2.FrameData:
		return d.stream() != 0
	case http2.FrameHeaders, http2.FramePushPromise, http2.FrameRSTStream:
		return d.stream() != 0 && d.left <= MaxHead
	}
	return d.kind() != http2.FrameContinuation
}

// payload takes a part of a frame's payload; left is what follows.
func (d *Decoder) payload(b []byte) error {
	switch d.kind() {
	case http2.FrameData:
		if err := d.data(b); err != nil {
			return err
		}
	case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation, http2.FrameRSTStream:
		d.buf = append(d.buf, b...)
	}
	if d.left > 0 {
		return nil
	}
	d.have = 0
	switch d.kind() {
	case http2.FrameData:
		if d.pad < 0 {
			return ErrMalformed
		}
		if d.has(http2.FlagDataEndStream) {
			d.to.Data(d.stream(), nil, true)
		}
	case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation:
		return d.headers()
	case http2.FrameRSTStream:
		d.to.Reset(d.stream())
	}
	return nil
}

// data takes a part of a DATA frame.
func (d *Decoder) data(b []byte) error {
	if d.pad < 0 && len(b) > 0 {
		d.pad = int(b[0])
		b = b[1:]
		if d.pad > d.left+len(b) {
			return ErrMalformed
		}
	}
	// What is left behind b is padding first of all.
	if n := len(b) - max(0, d.pad-d.left); n > 0 {
		d.to.Data(d.stream(), b[:n:n], false)
	}
	return nil
}

// headers takes a frame with fields, which is complete.
func (d *Decoder) headers() error {
	b, err := d.fragment()
	if err != nil {
		return err
	}
	if d.kind() != http2.FrameContinuation {
		d.open, d.block, d.push = d.stream(), nil, d.kind() == http2.FramePushPromise
		d.ends = !d.push && d.has(http2.FlagHeadersEndStream)
	}
	d.block = append(d.block, b...)
	if !d.has(http2.FlagHeadersEndHeaders) { // the same flag in all three
		return nil
	}
	stream := d.open
	d.open = 0
	fields, err := d.expand()
	if err != nil {
		return err
	}
	if !d.push {
		d.to.Head(stream, fields, d.ends)
	}
	return nil
}

// fragment returns what a frame has of fields.
func (d *Decoder) fragment() ([]byte, error) {
	b, pad := d.buf, 0
	if d.kind() == http2.FrameContinuation {
		return b, nil
	}
	if d.has(http2.FlagHeadersPadded) {
		if len(b) == 0 {
			return nil, ErrMalformed
		}
		pad, b = int(b[0]), b[1:]
	}
	before := 0
	switch {
	case d.kind() == http2.FramePushPromise:
		before = 4 // the promised stream
	case d.has(http2.FlagHeadersPriority):
		before = 5
	}
	if before+pad > len(b) {
		return nil, ErrMalformed
	}
	return b[before : len(b)-pad], nil
}

// expand returns the fields of the block.
func (d *Decoder) expand() ([]Field, error) {
	var (
		fields []Field
		size   int
	)
	d.fields.SetEmitFunc(func(f Field) {
		if size += int(f.Size()); size > MaxHead {
			d.fields.SetEmitEnabled(false)
			return
		}
		fields = append(fields, f)
	})
	_, err := d.fields.Write(d.block)
	if err == nil {
		err = d.fields.Close()
	}
	d.block = nil
	if err != nil || size > MaxHead {
		return nil, ErrMalformed
	}
	return fields, nil
}
