package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// talk is a client's side of a conversation.
type talk struct {
	io.Reader
	bytes.Buffer // what it was told
}

func (t *talk) Read(b []byte) (int, error) { return t.Reader.Read(b) }

func said(parts ...string) *talk {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return &talk{Reader: bytes.NewReader(all)}
}

func TestSOCKSRequest(t *testing.T) {
	const hello = "\x05\x02\x02\x00" // password or none
	for _, tt := range []struct {
		name   string
		client *talk
		host   string
		port   uint16
		told   string
	}{
		{"name", said(hello, "\x05\x01\x00\x03\x06orders\x00\x50"), "orders", 80, "\x05\x00"},
		{"ipv4", said(hello, "\x05\x01\x00\x01\xc0\x00\x02\x07\x1f\x90"), "192.0.2.7", 8080, "\x05\x00"},
		{"ipv6", said(hello, "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50"), "2001:db8::1", 80, "\x05\x00"},
		{"password_only", said("\x05\x01\x02"), "", 0, "\x05\xff"},
		{"socks4", said("\x04\x01\x00\x50"), "", 0, ""},
		{"udp", said(hello, "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"), "", 0, "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"unknown_type", said(hello, "\x05\x01\x00\x09"), "", 0, "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"no_name", said(hello, "\x05\x01\x00\x03\x00\x00\x50"), "", 0, "\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"ends", said(hello, "\x05\x01\x00\x03\x06ord"), "", 0, "\x05\x00"},
		{"nothing", said(""), "", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host, port, err := socksRequest(tt.client)
			if host != tt.host || port != tt.port || (err == nil) != (tt.host != "") {
				t.Errorf("got %q, %d, %v", host, port, err)
			}
			if got := tt.client.String(); got != tt.told {
				t.Errorf("told %q, want %q", got, tt.told)
			}
		})
	}
}

// TestSOCKSReadsNoMore: what follows the request is the flow's.
func TestSOCKSReadsNoMore(t *testing.T) {
	c := said("\x05\x01\x00", "\x05\x01\x00\x03\x01a\x00\x50", "GET /")
	if _, _, err := socksRequest(c); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(c.Reader); string(rest) != "GET /" {
		t.Errorf("left %q", rest)
	}
}

func FuzzSOCKSRequest(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x06orders\x00\x50"))
	f.Fuzz(func(t *testing.T, in []byte) {
		host, port, err := socksRequest(&talk{Reader: bytes.NewReader(in)})
		if err == nil && (host == "" || port == 0) {
			t.Errorf("%q: host %q, port %d without an error", in, host, port)
		}
	})
}

func TestSOCKSReplies(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want byte
	}{
		{ErrLocal, replyNotAllowed},
		{fmt.Errorf("connect: %w", syscall.ECONNREFUSED), replyRefused},
		{syscall.EHOSTUNREACH, replyHost},
		{syscall.ENETUNREACH, replyNetwork},
		{syscall.ETIMEDOUT, replyExpired},
		{&fault.Error{Code: fault.Target}, replyHost},
		{&fault.Error{Code: fault.SessionLost}, replyFailure},
		{errors.New("any"), replyFailure},
	} {
		if got := replyFor(tt.err); got != tt.want {
			t.Errorf("%v: reply %d, want %d", tt.err, got, tt.want)
		}
	}
}
