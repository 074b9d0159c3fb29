package replay

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

// errFraming says that a body is not framed as its request's head says.
var errFraming = errors.New("malformed chunked body")

// A part is what the next byte of a body belongs to.
type part uint8

const (
	partFixed   part = iota // left bytes of the body
	partSize                // the line with a chunk's size
	partChunk               // left bytes of a chunk, its line end included
	partTrailer             // trailer lines
)

// framing finds where the body of an HTTP/1 message ends (RFC 9112 §6, §7), without
// changing or keeping a byte of it.
type framing struct {
	part    part
	left    uint64
	line    []byte // the beginning of a line that is not complete
	trailer int    // bytes of trailers so far
}

// framingOf returns the framing of r's body.
func framingOf(r *http.Request) framing {
	if len(r.TransferEncoding) > 0 {
		return framing{part: partSize}
	}
	return framing{left: uint64(max(r.ContentLength, 0))}
}

// next returns how many of b's bytes belong to the body, and whether it ends with
// them.
func (f *framing) next(b []byte) (n int, done bool, err error) {
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
					return n, false, errFraming
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
func (f *framing) readLine(b []byte) (line []byte, n int) {
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
func (f *framing) heed(line []byte) (done bool, err error) {
	if f.part == partTrailer {
		f.trailer += len(line)
		if f.trailer > maxTrailer {
			return false, errFraming
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
		return 0, errFraming
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
			return 0, errFraming
		}
	}
	return size, nil
}

// empty reports whether there is no body.
func (f *framing) empty() bool { return f.part == partFixed && f.left == 0 }
