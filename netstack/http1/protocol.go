// Package http1 finds HTTP/1 messages in streams of bytes without changing or keeping
// them: what a connection speaks, where heads and bodies end.
package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
)

// A Protocol is what a flow speaks, as far as its first bytes tell.
type Protocol uint8

// The protocols.
const (
	Undecided Protocol = iota
	HTTP1
	HTTP2
	TLS
	Opaque // anything else: bytes
	// NumProtocols is how many there are.
	NumProtocols
)

// String returns the protocol's name.
func (p Protocol) String() string {
	switch p {
	case HTTP1:
		return "http/1"
	case HTTP2:
		return "http/2"
	case TLS:
		return "tls"
	case Opaque:
		return "unknown"
	}
	return "undecided"
}

// Preface is how an HTTP/2 connection begins (RFC 9113 §3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	// MaxHead bounds the head of a request.
	MaxHead = 256 << 10
	// MaxFirst bounds its first line.
	MaxFirst = 64 << 10
	// maxMethod bounds a method; the longest that is registered has 17 letters.
	maxMethod = 24
)

// Sniff tells from the first bytes of a connection what it speaks. It is undecided
// as long as they may become several things.
func Sniff(b []byte) Protocol {
	if len(b) == 0 {
		return Undecided
	}
	if b[0] == 22 { // handshake (RFC 8446 §5.1)
		switch {
		case len(b) < 3:
			return Undecided
		case b[1] == 3 && b[2] <= 4:
			return TLS
		}
		return Opaque
	}
	if n := min(len(b), len(Preface)); string(b[:n]) == Preface[:n] {
		if n == len(Preface) {
			return HTTP2
		}
		return Undecided
	}
	return SniffLine(b)
}

// SniffLine tells whether b begins with the first line of an HTTP/1 request.
func SniffLine(b []byte) Protocol {
	line, _, whole := bytes.Cut(b, []byte("\n"))
	method, rest, spaced := bytes.Cut(line, []byte(" "))
	switch {
	case len(method) > maxMethod, !isMethod(method), len(line) > MaxFirst:
		return Opaque
	case !spaced:
		if whole {
			return Opaque
		}
		return Undecided
	}
	target, version, spaced := bytes.Cut(rest, []byte(" "))
	if !spaced && whole || spaced && len(target) == 0 {
		return Opaque
	}
	version = bytes.TrimSuffix(version, []byte("\r"))
	const want = "HTTP/1."
	if n := min(len(version), len(want)); string(version[:n]) != want[:n] || len(version) > len(want)+1 {
		return Opaque
	}
	if !whole {
		return Undecided
	}
	if len(version) != len(want)+1 {
		return Opaque
	}
	return HTTP1
}

// isMethod reports whether b may be, or become, a method: those in use are capital
// letters and hyphens.
func isMethod(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return len(b) > 0
}

// SniffMiddle guesses what a connection speaks that was open before it was looked
// at. The guess only names it.
func SniffMiddle(b []byte) Protocol {
	switch {
	case len(b) >= 5 && b[0] >= 20 && b[0] <= 23 && b[1] == 3 && b[2] <= 4:
		return TLS
	case len(b) >= 9 && b[0] == 0 && b[3] <= 9 && b[5]&0x80 == 0:
		// A frame of at most 64 KiB of a known type (RFC 9113 §4.1).
		return HTTP2
	}
	return Opaque
}

// EndOfHead returns where the head in b ends, 0 if it does not. from is where to
// begin to look; what is before has been looked at.
func EndOfHead(b []byte, from int) int {
	for i := max(from, 0); ; {
		k := bytes.IndexByte(b[i:], '\n')
		if k < 0 {
			return 0
		}
		i += k + 1
		switch rest := b[i:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 2
		}
	}
}

// ParseHead reads the head of a request, from which leading empty lines have been
// taken off.
func ParseHead(head []byte) (*http.Request, error) {
	r, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), 16))
	if err != nil {
		return nil, fmt.Errorf("read head of request: %w", err)
	}
	return r, nil
}

// Switches reports whether the connection may speak something else behind r.
func Switches(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return true
	}
	if r.Header.Get("Upgrade") == "" {
		return false
	}
	for _, v := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// Safe reports whether a method changes nothing (RFC 9110 §9.2.1). CONNECT opens a
// tunnel through a proxy, of which nobody knows what it changes.
func Safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}
