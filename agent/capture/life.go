package capture

import (
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// maxWindow is the most that a receiver can grant (RFC 7323 §2.2). What is farther from what was seen says nothing.
	maxWindow = 1 << 30
	// maxOpening is what a SYN may carry (RFC 7413), at most.
	maxOpening = 1 << 16
)

// life is a flow from its first packet, or from the first that was seen.
//
// What of it is lost is counted in sequence numbers of its client, not in packets' payloads: what is sent again is not lost
// again, what the kernel dropped in between is lost with the rest, and what is known to be missing by what was taken is
// not counted here as well.
type life struct {
	ends
	birth       uint64
	begun       bool   // the SYN, or the server's answer to it, was seen
	begin       uint32 // and where the client's bytes begin by that
	first, last *item  // its packets in the queue
	place       int    // in Queue.newest; -1 = it is not there
	seen        time.Time
	open        bool // the server has consented
	fins        [2]bool
	ended       bool

	known bool   // the next two mean something
	high  uint32 // the end of what the client has sent, by its own packets or by what the server has acknowledged
	out   uint32 // the end of what whoever takes packets knows of, or is told to be lost; never beyond high

	lost     bool
	answered bool // since it is lost the server has sent something
	packets  uint64
	bytes    uint64
	told     bool // an item that tells of packets and bytes is in the queue
	waits    bool // it is in Queue.pending
}

// isAnother reports whether s is of a connection other than f, with the same ends.
func (f *life) isAnother(s *segment, now time.Time) bool {
	switch {
	case f.ended && now.Sub(f.seen) > forget:
		return true
	case s.opens():
		return f.ended || !f.begun || f.begin != s.seq+1
	case s.consents():
		return !f.begun || s.ack-f.begin > maxOpening
	case s.fromClient && s.payload > 0 && s.flags&flow.RST == 0:
		return f.fins[0] && int32(s.seq-f.high) > 0 // behind its FIN; how it opened was not captured
	}
	return false
}

// note keeps what s says of the flow's state. It reports whether s begins where what its client has sent before ended.
func (f *life) note(s *segment, now time.Time) (next bool) {
	f.seen = now
	switch {
	case s.opens():
		f.start(s.seq + 1)
	case s.consents():
		f.start(s.ack)
		f.open = true
	case s.fromClient && s.flags&(flow.ACK|flow.RST) == flow.ACK:
		f.open = true
	}
	if end, ok := f.shows(s); ok {
		if !f.known {
			f.known, f.high, f.out = true, s.from(), s.from()
		}
		next = s.fromClient && s.from() == f.high
		if end-f.high <= maxWindow && !f.fins[0] { // a FIN takes a number, too
			f.high = end
		}
	}
	if s.flags&flow.FIN != 0 {
		f.fins[side(s)] = true
	}
	if s.flags&flow.RST != 0 || f.fins[0] && f.fins[1] {
		f.ended = true
	}
	return next
}

// shows returns where what the client has sent ends, by s.
func (f *life) shows(s *segment) (end uint32, ok bool) {
	if s.fromClient {
		return s.from() + uint32(s.payload), s.flags&flow.RST == 0 // whose number may be made up
	}
	// Before it consents a server may acknowledge what it was sent on an earlier connection (RFC 5961 §4.2).
	return s.ack, s.flags&flow.ACK != 0 && f.open && f.known
}

// start says where the client's bytes begin, the first time.
func (f *life) start(at uint32) {
	if !f.begun {
		f.begun, f.begin = true, at
		f.known, f.high, f.out = true, at, at
	}
}

// took notes that s was taken from the queue: who has it knows of what is missing before it.
func (f *life) took(s *segment) {
	if end, ok := f.shows(s); ok && end-f.out <= maxWindow {
		f.out += min(end-f.out, f.high-f.out)
	}
}

// miss returns how many bytes the client has sent that were neither taken nor counted as lost, and takes them for lost.
func (f *life) miss() uint64 {
	n := f.high - f.out
	f.out = f.high
	return uint64(n)
}

// tell returns what was lost since it was told last.
func (f *life) tell() Loss {
	l := Loss{Client: f.client, Server: f.server, Packets: f.packets, Bytes: f.bytes}
	f.packets, f.bytes, f.told = 0, 0, false
	return l
}

func side(s *segment) int {
	if s.fromClient {
		return 0
	}
	return 1
}
