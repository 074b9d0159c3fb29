package http1

import (
	"bytes"
	"errors"
	"net/http"
)

const (
	// maxLine bounds a line of a chunked body, maxTrailer all its trailers.
	maxLine    = 8 << 10
	maxTrailer = 64 << 10
)

// ErrFraming says that a body is not framed as its request's head says.
var ErrFraming = errors.New("malformed chunked body")

// A part is what the next byte of a body belongs to.
type part uint8

const (
	partFixed   part = iota // left bytes of the body
	partSize                // the line with a chunk's size
	partChunk               // left bytes of a chunk, its line end included
	partTrailer             // trailer lines
)

// Framing finds where the body of an HTTP/1 message ends (RFC 9112 §6, §7), without
// changing or keeping a byte of it.
type Framing struct {
	part    part
	left    uint64
	line    []byte // the beginning of a line that is not complete
	trailer int    // bytes of trailers so far
}

// FramingOf returns the framing of r's body.
func FramingOf(r *http.Request) Framing {
	if len(r.TransferEncoding) > 0 {
		return Framing{part: partSize}
	}
	return Framing{left: uint64(max(r.ContentLength, 0))}
}

// Next returns how many of b's bytes belong to the body, and whether it ends with
// them.
func (f *Framing) Next(b []byte) (n int, done bool, err error) {
	for {
		switch f.part {
		case partFixed:
			k := min(f.left, uint64(len(b)-n))
			f.left -= k
			return n + int(k), f.left == 0, nil
		case partChunk:
			k := min(f.left, uint64(len(b)-n))
			f.left -= k
			n += int(k)
			if f.left > 0 {
				return n, false, nil
			}
			f.part = partSize
		default:
			line, k := f.readLine(b[n:])
			n += k
			if line == nil {
				if len(f.line) > maxLine {
					return n, false, ErrFraming
				}
				return n, false, nil
			}
			if done, err := f.heed(line); done || err != nil {
				return n, done, err
			}
		}
		if n == len(b) {
			return n, false, nil
		}
	}
}

// readLine returns the line that ends in b without its end, nil if none does, and
// how many of b's bytes it took.
func (f *Framing) readLine(b []byte) (line []byte, n int) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		f.line = append(f.line, b...)
		return nil, len(b)
	}
	line = append(f.line, b[:i]...)
	f.line = nil
	line = bytes.TrimSuffix(line, []byte("\r"))
	if line == nil {
		line = []byte{}
	}
	return line, i + 1
}

// heed takes a whole line. It reports whether the body ends with it.
func (f *Framing) heed(line []byte) (done bool, err error) {
	if f.part == partTrailer {
		f.trailer += len(line)
		if f.trailer > maxTrailer {
			return false, ErrFraming
		}
		return len(line) == 0, nil
	}
	size, err := chunkSize(line)
	switch {
	case err != nil:
		return false, err
	case size == 0:
		f.part = partTrailer
	default:
		// A chunk ends with CR LF, which this takes for part of it.
		f.part, f.left = partChunk, size+2
	}
	return false, nil
}

// chunkSize reads the line before a chunk (RFC 9112 §7.1). What follows a
// semicolon are extensions.
func chunkSize(line []byte) (uint64, error) {
	line, _, _ = bytes.Cut(line, []byte(";"))
	line = bytes.TrimRight(line, " \t")
	if len(line) == 0 || len(line) > 15 {
		return 0, ErrFraming
	}
	var size uint64
	for _, c := range line {
		size <<= 4
		switch {
		case c >= '0' && c <= '9':
			size |= uint64(c - '0')
		case c >= 'a' && c <= 'f':
			size |= uint64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			size |= uint64(c-'A') + 10
		default:
			return 0, ErrFraming
		}
	}
	return size, nil
}

// FramingOfAnswer returns the framing of r's body. toEnd reports that it ends with the
// connection instead.
func FramingOfAnswer(r *http.Response) (f Framing, toEnd bool) {
	switch {
	case len(r.TransferEncoding) > 0:
		return Framing{part: partSize}, false
	case r.ContentLength < 0:
		return Framing{}, true
	}
	return Framing{left: uint64(r.ContentLength)}, false
}

// Empty reports whether there is no body.
func (f *Framing) Empty() bool { return f.part == partFixed && f.left == 0 }
