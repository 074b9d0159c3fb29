package agent

import (
	"net/netip"
	"slices"

	"github.com/borrownet/borrownet/agent/wire"
)

// Policy says which destinations the agent refuses. The zero value refuses
// loopback, link-local (instance metadata among it), multicast and
// unspecified addresses.
type Policy struct {
	HostIPs []netip.Addr // the node's addresses, where the kubelet's ports are refused
	// Localhost are TCP ports of the pod's loopback that are allowed, to the client
	// itself, as wire.LoopbackAddr.
	Localhost []uint16
}

// kubeletPorts answer on the node's address: the kubelet's API, its read-only
// and health ports and kube-proxy's.
var kubeletPorts = []uint16{10248, 10249, 10250, 10255, 10256}

// Refuses returns why dst is refused, or "" when it is allowed.
func (p Policy) Refuses(dst netip.AddrPort) string {
	ip := dst.Addr().Unmap()
	switch {
	case ip == wire.LoopbackAddr && slices.Contains(p.Localhost, dst.Port()):
		return ""
	case ip == wire.LoopbackAddr:
		return "pod's loopback"
	case !ip.IsValid() || ip.IsUnspecified():
		return "unspecified address"
	case ip.IsLoopback():
		return "pod's loopback"
	case ip.IsLinkLocalUnicast():
		return "link-local address"
	case ip.IsMulticast() || ip == broadcast:
		return "multicast or broadcast"
	case slices.Contains(p.HostIPs, ip) && slices.Contains(kubeletPorts, dst.Port()):
		return "kubelet"
	}
	return ""
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
