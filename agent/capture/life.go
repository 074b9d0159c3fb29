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
// again, and what the kernel dropped in between is lost with the rest.
type life struct {
	ends
	birth       uint64
	begun       bool   // the SYN, or the server's answer to it, was seen
	begin       uint32 // and where the client's bytes begin by that
	first, last *item  // its packets in the queue
	place       int    // in Queue.newest; -1 = it is not there
	seen        time.Time
	fins        [2]bool
	ended       bool

	known bool   // the next two mean something
	high  uint32 // the end of what the client has sent, as far as it was seen
	out   uint32 // the end of what was taken of that, or is counted as lost; never beyond high

	lost     bool
	answered bool // since it is lost the server has sent something
	packets  uint64
	bytes    uint64
	told     bool // an item that tells of packets and bytes is in the queue
	waits    bool // it is in Queue.pending
}

// isAnother reports whether s opens a connection other than f, with the same ends.
func (f *life) isAnother(s *segment) bool {
	switch {
	case s.opens():
		return f.ended || !f.begun || f.begin != s.seq+1
	case s.consents():
		return !f.begun || s.ack-f.begin > maxOpening
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
	}
	if end, ok := s.end(); ok {
		if !f.known {
			f.known, f.high, f.out = true, s.from(), s.from()
		}
		next = s.from() == f.high
		if end-f.high <= maxWindow {
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

// start says where the client's bytes begin, the first time.
func (f *life) start(at uint32) {
	if !f.begun {
		f.begun, f.begin = true, at
		f.known, f.high, f.out = true, at, at
	}
}

// took notes that s was taken from the queue.
func (f *life) took(s *segment) {
	if end, ok := s.end(); ok && end-f.out <= maxWindow {
		f.out = end
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
