package http2

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// errHead says that fields are no head of a message.
var errHead = errors.New("malformed head")

// RequestOf returns the request whose head fields are, without a body. Its URL's Opaque
// is the path as it was sent.
func RequestOf(fields []Field) (*http.Request, error) {
	r := &http.Request{Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, URL: &url.URL{}, ContentLength: -1}
	for _, f := range fields {
		switch f.Name {
		case ":method":
			r.Method = f.Value
		case ":path":
			r.RequestURI = f.Value
		case ":authority":
			r.Host = f.Value
		case ":scheme":
			r.URL.Scheme = f.Value
		case ":protocol": // RFC 8441; net/http spells it so
			r.Header[f.Name] = []string{f.Value}
		default:
			if err := add(r.Header, f); err != nil {
				return nil, err
			}
		}
	}
	if text := r.Header.Get("Content-Length"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, errHead
		}
		r.ContentLength = n
	}
	if r.Host == "" {
		r.Host = r.Header.Get("Host")
	}
	r.Header.Del("Host")
	tunnel := r.Method == http.MethodConnect && r.Header[":protocol"] == nil
	switch {
	case r.Method == "", !tunnel && !strings.HasPrefix(r.RequestURI, "/") && r.RequestURI != "*":
		return nil, errHead
	case tunnel:
		r.RequestURI = r.Host
	default:
		r.URL.Opaque = r.RequestURI
	}
	return r, nil
}

// StatusOf returns the status and the headers of an answer whose head fields are.
func StatusOf(fields []Field) (status int, header http.Header, err error) {
	header = http.Header{}
	for _, f := range fields {
		if f.Name == ":status" {
			if status, err = strconv.Atoi(f.Value); err != nil {
				return 0, nil, errHead
			}
			continue
		}
		if err := add(header, f); err != nil {
			return 0, nil, err
		}
	}
	if status < 100 || status > 999 {
		return 0, nil, errHead
	}
	return status, header, nil
}

// TrailerOf returns the trailers that fields are.
func TrailerOf(fields []Field) (http.Header, error) {
	out := http.Header{}
	for _, f := range fields {
		if err := add(out, f); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// add adds a field that is none of HTTP/2's own.
func add(h http.Header, f Field) error {
	if f.Name == "" || f.IsPseudo() {
		return errHead
	}
	name := http.CanonicalHeaderKey(f.Name)
	h[name] = append(h[name], f.Value)
	return nil
}
