package agent

import (
	"net/netip"
	"slices"

	"github.com/borrownet/borrownet/agent/wire"
)

// Policy says which destinations the agent refuses. The zero value refuses
// loopback, link-local, multicast and unspecified addresses, and services of
// clouds that hand out the node's identity.
type Policy struct {
	HostIPs []netip.Addr // the node's addresses, where the kubelet's ports are refused
	// Localhost are TCP ports of the pod's loopback that are allowed, to the client
	// itself, as wire.LoopbackAddr.
	Localhost []uint16
	// Metadata are link-local addresses, and others of metadata services, that are
	// allowed: where the node tells the pod from itself, or somebody has asked.
	Metadata []netip.Addr
	PodIPs   []netip.Addr // the pod's own, where the ports of mesh proxies are refused
	// Nameservers are the pod's. Their port 53 is allowed wherever they are: a
	// node's cache has a link-local address, a sidecar's the loopback's.
	Nameservers []netip.Addr
}

// kubeletPorts answer on the node's addresses: the kubelet's API, its read-only
// and health ports and kube-proxy's.
var kubeletPorts = []uint16{10248, 10249, 10250, 10255, 10256}

// Refuses returns why dst is refused, or "" when it is allowed.
func (p Policy) Refuses(dst netip.AddrPort) string {
	ip := dst.Addr().Unmap().WithZone("")
	switch {
	case ip == wire.LoopbackAddr && slices.Contains(p.Localhost, dst.Port()):
		return ""
	case ip == wire.LoopbackAddr:
		return "pod's loopback"
	case p.isNameserver(dst):
		return ""
	case !ip.IsValid() || ip.IsUnspecified():
		return "unspecified address"
	case ip.IsLoopback():
		return "pod's loopback"
	case slices.Contains(p.Metadata, ip):
		return ""
	case ip.IsLinkLocalUnicast():
		return "link-local address"
	case ip.IsMulticast() || ip == broadcast:
		return "multicast or broadcast"
	case wire.IsMetadata(ip):
		return "cloud metadata"
	case slices.Contains(p.HostIPs, ip) && slices.Contains(kubeletPorts, dst.Port()):
		return "kubelet"
	case slices.Contains(p.PodIPs, ip) && slices.Contains(meshPorts, dst.Port()):
		return "pod's mesh proxy"
	}
	return ""
}

// isNameserver reports whether dst is where one of the pod's name servers answers.
func (p Policy) isNameserver(dst netip.AddrPort) bool {
	return dst.Port() == dnsPort && slices.Contains(p.Nameservers, dst.Addr().Unmap().WithZone(""))
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
