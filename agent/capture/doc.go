// Package capture copies packets of a pod's inbound TCP flows, without being in their way: with AF_PACKET sockets whose
// filter in the kernel lets nothing but the captured ports pass, and a ring of fixed size from which it reads.
//
// What cannot be kept is dropped, never waited for, and counted: by the kernel where the ring is full, and by a [Queue],
// which has a budget of bytes and gives up whole flows.
//
// Opening a packet socket takes CAP_NET_RAW. The agent's process does not have it: a second program, whose file has the
// capability, opens the sockets, hands them over and ends ([HelperMain]).
//
// A Capture starts no goroutine; its Run owns the ring. A Queue starts none either.
package capture

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Interfaces of a capture: the values of Packet.Iface.
const (
	Loopback uint8 = iota
	Pod
	interfaces
)

// Spec says what to capture. Where is a suggestion, which is verified by what is seen: see Place.
type Spec struct {
	Loopback  []uint16     // ports of servers, as they are reached through a mesh's proxy
	Pod       []uint16     // ports of servers, as they are reached on the pod's interface
	Addrs     []netip.Addr // the pod's own
	Responses bool         // whole packets of servers; false = their headers
	Ring      int          // bytes, of all interfaces; 0 = DefaultRing
}

// DefaultRing holds what a busy pod is sent while the reader waits for its turn on the CPU.
const DefaultRing = 8 << 20

// Packet is a captured IP packet.
type Packet struct {
	Time  time.Time
	Iface uint8
	Data  []byte
	Wire  int // its length in the pod; more than len(Data) if it was cut
}

// Counters are those of the kernel.
type Counters struct {
	Packets uint64 // that the filters let pass, the dropped ones included
	Dropped uint64 // for want of room in the ring
}

// ErrNotPermitted says that the process may not open packet sockets, nor has a helper that may.
var ErrNotPermitted = errors.New("capturing is not permitted")

// server reports whether addr:port, as an interface sees it, is a server that is to be captured.
func (s *Spec) server(iface uint8, addr netip.Addr, port uint16) bool {
	return (slices.Contains(s.Loopback, port) || slices.Contains(s.Pod, port)) && s.own(iface, addr)
}

// own reports whether addr is the pod's, as its interfaces see it.
func (s *Spec) own(iface uint8, addr netip.Addr) bool {
	return slices.Contains(s.Addrs, addr) || iface == Loopback && addr.IsLoopback() && !addr.Is4In6()
}
