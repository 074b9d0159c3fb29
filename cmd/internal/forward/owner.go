package forward

import (
	"bytes"
	"errors"
	"net/netip"
)

// errNobody says that a socket has no owner any more.
var errNobody = errors.New("it is gone already")

// lists reports whether lsof's output of names (-Fn) has a connection.
func lists(out []byte, local, peer netip.AddrPort) bool {
	want := []byte("n" + local.String() + "->" + peer.String())
	for line := range bytes.Lines(out) {
		if bytes.Equal(bytes.TrimSpace(line), want) {
			return true
		}
	}
	return false
}
