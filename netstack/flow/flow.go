// Package flow names the flows that pass through borrownet and reads them out
// of raw IP packets.
//
// A Flow is a transport protocol and its two ends, in one direction. Parse
// finds the flow of a packet without trusting a byte of it: it never panics,
// allocates only for the flow quoted by an ICMP error, and bounds the IPv6
// extension headers it walks.
package flow

import (
	"fmt"
	"net/netip"
)

// Proto is an IP protocol number.
type Proto uint8

// The protocols that flows are made of.
const (
	ICMP   Proto = 1
	TCP    Proto = 6
	UDP    Proto = 17
	ICMPv6 Proto = 58
)

// String returns the protocol's name, or its number if it has none here.
func (p Proto) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "icmpv6"
	}
	return fmt.Sprintf("proto-%d", uint8(p))
}

// A Flow is one direction of a conversation. For ICMP echo both ports hold the
// echo identifier, so that Reverse of a request is the flow of its reply; for
// everything else without ports they are zero.
//
// Flows are comparable: IPv4 addresses are always in their 4-byte form.
type Flow struct {
	Proto Proto
	Src   netip.AddrPort
	Dst   netip.AddrPort
}

// Reverse returns the flow of the answers to f.
func (f Flow) Reverse() Flow {
	return Flow{Proto: f.Proto, Src: f.Dst, Dst: f.Src}
}

// String returns f as "tcp 192.0.2.1:1234 -> 192.0.2.2:80".
func (f Flow) String() string {
	return fmt.Sprintf("%v %v -> %v", f.Proto, f.Src, f.Dst)
}
