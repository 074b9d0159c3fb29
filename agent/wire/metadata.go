package wire

import (
	"net/netip"
	"slices"
)

// metadata are the addresses, outside of the link-local networks, at which
// clouds hand out credentials and secrets of the node.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("fd00:ec2::23"),    // EKS Pod Identity
	netip.MustParseAddr("fd00:ec2::254"),   // EC2
	netip.MustParseAddr("fd20:ce::254"),    // Google
}

// IsMetadata reports whether a may be a cloud's metadata service: one of those
// that are known, or any link-local IPv4 address. An agent can be started for
// these; what else it refuses stays refused.
func IsMetadata(a netip.Addr) bool {
	return a.Is4() && a.IsLinkLocalUnicast() || slices.Contains(metadata, a)
}
