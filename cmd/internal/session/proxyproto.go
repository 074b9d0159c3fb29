package session

import (
	"encoding/binary"
	"net/netip"
)

// proxySignature begins a header of the PROXY protocol, version 2.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// proxyHeader tells the receiver of a connection who its real ends are: the PROXY
// protocol, version 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt, §2.2).
func proxyHeader(client, server netip.AddrPort) []byte {
	const proxied, tcp4, tcp6 = 2<<4 | 1, 1<<4 | 1, 2<<4 | 1
	family := byte(tcp6)
	if client.Addr().Is4() && server.Addr().Is4() {
		family = tcp4
	}
	var ends []byte
	for _, a := range []netip.Addr{client.Addr(), server.Addr()} {
		if family == tcp6 {
			a16 := a.As16()
			ends = append(ends, a16[:]...)
		} else {
			ends = append(ends, a.AsSlice()...)
		}
	}
	ends = binary.BigEndian.AppendUint16(ends, client.Port())
	ends = binary.BigEndian.AppendUint16(ends, server.Port())
	out := append([]byte(proxySignature), proxied, family)
	out = binary.BigEndian.AppendUint16(out, uint16(len(ends)))
	return append(out, ends...)
}
