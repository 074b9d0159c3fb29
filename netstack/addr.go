package netstack

import (
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// nicID is the stack's only NIC.
const nicID tcpip.NICID = 1

// toAddress returns a for gVisor. The zero and the unspecified address become
// gVisor's zero Address, which lets the stack choose.
func toAddress(a netip.Addr) tcpip.Address {
	a = a.Unmap()
	switch {
	case !a.IsValid() || a.IsUnspecified():
		return tcpip.Address{}
	case a.Is4():
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

// toFullAddress returns ap for gVisor, on the stack's NIC.
func toFullAddress(ap netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: toAddress(ap.Addr()), Port: ap.Port()}
}

// addrFrom returns a gVisor address as netip.Addr.
func addrFrom(a tcpip.Address) netip.Addr {
	switch a.Len() {
	case header.IPv4AddressSize:
		return netip.AddrFrom4(a.As4())
	case header.IPv6AddressSize:
		return netip.AddrFrom16(a.As16())
	}
	return netip.Addr{}
}

func addrPortFrom(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(addrFrom(a), port)
}

// protocolOf returns the IP version of a.
func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Unmap().Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// addressWithPrefix returns a with a prefix as long as itself.
func addressWithPrefix(a netip.Addr) tcpip.AddressWithPrefix {
	return toAddress(a).WithPrefix()
}

// unmap returns ap with an IPv4 address in its 4-byte form.
func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func tcpAddr(ap netip.AddrPort) net.Addr { return net.TCPAddrFromAddrPort(ap) }

func udpAddr(ap netip.AddrPort) net.Addr { return net.UDPAddrFromAddrPort(ap) }
