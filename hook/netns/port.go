package netns

import (
	"net/netip"

	"github.com/borrownet/borrownet/netstack/flow"
)

// FirstAutoPort is the first of the ports that the namespace's kernel gives to
// sockets that ask for none. The last is 65535.
const FirstAutoPort = 61001

// Port is where a program of the session waits to be spoken to: a TCP listener, or
// a UDP socket without a peer.
type Port struct {
	Proto flow.Proto
	At    netip.AddrPort
	IPv6  bool // the socket is AF_INET6: its wildcard is that of IPv4 too unless V6Only
	// V6Only is IPV6_V6ONLY.
	V6Only bool
}
