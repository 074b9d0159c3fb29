package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/borrownet/borrownet/netstack/flow"
)

// A sender is what the link knows of a conn that sends through it, guarded by
// the link's mu.
//
// It tells retransmissions from new data. Over a link that loses nothing a
// retransmission is almost always spurious, so it is dropped for want of room.
type sender struct {
	flow flow.Flow
	// next is the sequence number after the last byte that was sent, valid if
	// sent is set.
	next uint32
	sent bool
}

// again reports whether seg, with size bytes of payload, was sent before, and
// notes that it is now.
func (f *sender) again(seg header.TCP, size int) bool {
	end := seg.SequenceNumber() + uint32(size)
	if f.sent && int32(end-f.next) <= 0 {
		return true
	}
	f.next, f.sent = end, true
	return false
}

// addSender makes f known to the link. A sender of the same flow that has not
// been removed yet loses its place.
func (l *link) addSender(f flow.Flow) *sender {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &sender{flow: f}
	l.senders[f] = s
	return s
}

// removeSender forgets s, which sends nothing any more.
func (l *link) removeSender(s *sender) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.senders[s.flow] == s {
		delete(l.senders, s.flow)
	}
}

// flowOf returns the flow of an outbound packet.
func flowOf(pkt *stack.PacketBuffer, proto flow.Proto, ports header.Transport) flow.Flow {
	ip := pkt.Network()
	return flow.Flow{
		Proto: proto,
		Src:   addrPortFrom(ip.SourceAddress(), ports.SourcePort()),
		Dst:   addrPortFrom(ip.DestinationAddress(), ports.DestinationPort()),
	}
}
