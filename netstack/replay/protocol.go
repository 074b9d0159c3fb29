package replay

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
)

// A protocol is what a flow speaks, as far as its first bytes tell.
type protocol uint8

const (
	undecided protocol = iota
	http1
	http2
	tls
	opaque // anything else: bytes
	numProtocols
)

// String returns the protocol's name.
func (p protocol) String() string {
	switch p {
	case http1:
		return "http/1"
	case http2:
		return "http/2"
	case tls:
		return "tls"
	case opaque:
		return "unknown"
	}
	return "undecided"
}

// preface is how an HTTP/2 connection begins (RFC 9113 §3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	// maxHead bounds the head of a request.
	maxHead = 256 << 10
	// maxFirst bounds its first line.
	maxFirst = 64 << 10
	// maxMethod bounds a method; the longest that is registered has 17 letters.
	maxMethod = 24
)

// sniff tells from the first bytes of a connection what it speaks. It is undecided
// as long as they may become several things.
func sniff(b []byte) protocol {
	if len(b) == 0 {
		return undecided
	}
	if b[0] == 22 { // handshake (RFC 8446 §5.1)
		switch {
		case len(b) < 3:
			return undecided
		case b[1] == 3 && b[2] <= 4:
			return tls
		}
		return opaque
	}
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		if n == len(preface) {
			return http2
		}
		return undecided
	}
	return sniffLine(b)
}

// sniffLine tells whether b begins with the first line of an HTTP/1 request.
func sniffLine(b []byte) protocol {
	line, _, whole := bytes.Cut(b, []byte("\n"))
	method, rest, spaced := bytes.Cut(line, []byte(" "))
	switch {
	case len(method) > maxMethod, !isMethod(method), len(line) > maxFirst:
		return opaque
	case !spaced:
		if whole {
			return opaque
		}
		return undecided
	}
	target, version, spaced := bytes.Cut(rest, []byte(" "))
	if !spaced && whole || spaced && len(target) == 0 {
		return opaque
	}
	version = bytes.TrimSuffix(version, []byte("\r"))
	const want = "HTTP/1."
	if n := min(len(version), len(want)); string(version[:n]) != want[:n] || len(version) > len(want)+1 {
		return opaque
	}
	if !whole {
		return undecided
	}
	if len(version) != len(want)+1 {
		return opaque
	}
	return http1
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

// sniffMiddle guesses what a connection speaks that was open before it was looked
// at. The guess only names it.
func sniffMiddle(b []byte) protocol {
	switch {
	case len(b) >= 5 && b[0] >= 20 && b[0] <= 23 && b[1] == 3 && b[2] <= 4:
		return tls
	case len(b) >= 9 && b[0] == 0 && b[3] <= 9 && b[5]&0x80 == 0:
		// A frame of at most 64 KiB of a known type (RFC 9113 §4.1).
		return http2
	}
	return opaque
}

// endOfHead returns where the head in b ends, 0 if it does not. from is where to
// begin to look; what is before has been looked at.
func endOfHead(b []byte, from int) int {
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

// parseHead reads the head of a request, from which leading empty lines have been
// taken off.
func parseHead(head []byte) (*http.Request, error) {
	r, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), 16))
	if err != nil {
		return nil, fmt.Errorf("read head of request: %w", err)
	}
	return r, nil
}

// switches reports whether the connection may speak something else behind r.
func switches(r *http.Request) bool {
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
