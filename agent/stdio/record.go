package stdio

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A record, before base64: integers are big-endian.
//
//	0  8  stream, chosen by the client at random
//	8  4  number of the record in its stream and direction, from 0
//	12 1  kind
//	13 n  payload
//	 … 4  CRC-32C of all before
//
// Its line is a tilde, the record in base64 without padding, and a line feed.
const (
	headLen = 13
	sumLen  = 4

	// maxLine is the longest line that container runtimes keep in one piece in a log.
	maxLine    = 16 << 10
	maxPayload = (maxLine-2)/4*3 - headLen - sumLen
)

// Mark is what the line of a record begins with.
const Mark = '~'

type kind uint8

const (
	kindOpen kind = 1 // the first record of either direction; the agent's has its greeting
	kindData kind = 2
	kindEnd  kind = 3 // the last one
)

type record struct {
	stream  uint64
	number  uint32
	kind    kind
	payload []byte
}

var (
	errGap     = errors.New("part of the stream is missing: somebody else is attached, or an older connection was cut off")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// encoder makes lines.
type encoder struct{ raw []byte }

// append appends the line of r to b.
func (e *encoder) append(b []byte, r record) []byte {
	raw := binary.BigEndian.AppendUint64(e.raw[:0], r.stream)
	raw = binary.BigEndian.AppendUint32(raw, r.number)
	raw = append(raw, byte(r.kind))
	raw = append(raw, r.payload...)
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	e.raw = raw
	b = append(b, Mark)
	b = base64.RawStdEncoding.AppendEncode(b, raw)
	return append(b, '\n')
}

// appendData appends p as data of a stream whose next record is number, and returns the number after it.
func (e *encoder) appendData(b, p []byte, stream uint64, number uint32) ([]byte, uint32) {
	for len(p) > 0 {
		n := min(len(p), maxPayload)
		b = e.append(b, record{stream, number, kindData, p[:n]})
		p = p[n:]
		number++
	}
	return b, number
}

// decoder reads records among whatever else there is.
type decoder struct {
	r   *bufio.Reader
	raw []byte
}

func newDecoder(r io.Reader) *decoder {
	return &decoder{r: bufio.NewReaderSize(r, 2*maxLine), raw: make([]byte, maxLine)}
}

// next returns the next whole record. Its payload is valid until the next call.
func (d *decoder) next() (record, error) {
	for long := false; ; {
		line, err := d.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = true
			continue
		}
		if err != nil {
			return record{}, err
		}
		if r, ok := d.parse(line); ok && !long {
			return r, nil
		}
		long = false
	}
}

// parse reports whether line is a record.
func (d *decoder) parse(line []byte) (record, bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) == 0 || len(line) > maxLine || line[0] != Mark {
		return record{}, false
	}
	n, err := base64.RawStdEncoding.Decode(d.raw, line[1:])
	if err != nil || n < headLen+sumLen {
		return record{}, false
	}
	body := d.raw[:n-sumLen]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(d.raw[n-sumLen:n]) {
		return record{}, false
	}
	return record{binary.BigEndian.Uint64(body), binary.BigEndian.Uint32(body[8:]), kind(body[12]), body[headLen:]}, true
}
