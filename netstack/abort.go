package netstack

import (
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/borrownet/borrownet/netstack/flow"
)

// openConns are the TCP conns of a stack that have not ended.
type openConns struct {
	mu    sync.Mutex
	conns map[*TCPConn]struct{}
}

func (o *openConns) add(c *TCPConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conns == nil {
		o.conns = map[*TCPConn]struct{}{}
	}
	o.conns[c] = struct{}{}
}

func (o *openConns) remove(c *TCPConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.conns, c)
}

// from returns the conns whose own address is local.
func (o *openConns) from(local netip.Addr) []*TCPConn {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*TCPConn
	for c := range o.conns {
		if c.local.Addr() == local {
			out = append(out, c)
		}
	}
	return out
}

// Abort ends the stack's TCP conns whose own address is local, because their peers
// are no more: Reads and Writes fail with ECONNABORTED. Conns that are still being
// opened go on.
func (s *Stack) Abort(local netip.Addr) {
	for _, c := range s.open.from(local) {
		c.ep.Abort()
	}
}

// RefuseDials ends the conns that are being opened from local, and all that will be, with err: nobody answers any more.
func (s *Stack) RefuseDials(local netip.Addr, err error) { s.dials.refuse(local, err) }

// Challenge returns a packet to the source of f, a TCP flow, that no conn expects: a
// kernel that has the conn answers with where it is in it (RFC 5961 §4), and who does
// not know the flow answers that with a RST which the kernel believes. So a conn whose
// peer is no more is reset though nobody knows its sequence numbers. One that is being
// opened is not: the packet acknowledges no SYN, and the kernel sends its own again. A
// bare SYN would open it (RFC 9293 §3.5, simultaneous open).
func Challenge(f flow.Flow) []byte {
	from, to := toAddress(f.Dst.Addr()), toAddress(f.Src.Addr())
	size := header.IPv6MinimumSize
	if f.Src.Addr().Is4() {
		size = header.IPv4MinimumSize
	}
	pkt := make([]byte, size+header.TCPMinimumSize)
	if f.Src.Addr().Is4() {
		ip := header.IPv4(pkt)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(pkt)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: from, DstAddr: to})
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		header.IPv6(pkt).Encode(&header.IPv6Fields{
			PayloadLength: header.TCPMinimumSize, TransportProtocol: header.TCPProtocolNumber, HopLimit: 64, SrcAddr: from, DstAddr: to,
		})
	}
	tcp := header.TCP(pkt[size:])
	tcp.Encode(&header.TCPFields{
		SrcPort: f.Dst.Port(), DstPort: f.Src.Port(), DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn | header.TCPFlagAck, WindowSize: 65535,
	})
	tcp.SetChecksum(^tcp.CalculateChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, from, to, header.TCPMinimumSize)))
	return pkt
}
