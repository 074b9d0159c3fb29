package netstack

import "sync/atomic"

// Stats are exact counters of a Stack since New.
type Stats struct {
	// PacketsIn and BytesIn count what was delivered.
	PacketsIn, BytesIn uint64
	// PacketsOut and BytesOut count what was read.
	PacketsOut, BytesOut uint64
	// Malformed counts delivered packets that were no IP packets of a version
	// that the stack speaks, or an excess of ICMP "too big" messages.
	Malformed uint64
	// LinkWaits counts how often a Write had to wait for room in the link.
	LinkWaits uint64
	// LinkDropsTCP, LinkDropsAgain and LinkDropsDatagram count packets dropped
	// because the link's budget for segments without data, for retransmissions or for
	// datagrams was full.
	LinkDropsTCP, LinkDropsAgain, LinkDropsDatagram uint64
	// LinkQueued is how many bytes wait to be read now.
	LinkQueued uint64
	// SYNDuplicates counts SYNs of requests that were being decided already,
	// SYNDrops those beyond ForwardTCP's maxInFlight.
	SYNDuplicates, SYNDrops uint64
	// SYNInFlight is how many requests are being decided now.
	SYNInFlight uint64
	// TCPAccepted and TCPRejected count decided requests.
	TCPAccepted, TCPRejected uint64
	// TCPOpen is how many TCP conns are established now.
	TCPOpen uint64
	// Senders is how many conns may still send, those closed but not yet
	// acknowledged included.
	Senders uint64
	// TCPRetransmits and TCPTimeouts count retransmitted segments and expired
	// retransmission timers. On a stream both are spurious.
	TCPRetransmits, TCPTimeouts uint64
	// UDPIn and UDPOut count forwarded datagrams.
	UDPIn, UDPOut uint64
	// EchoIn and EchoOut count forwarded echo requests and their replies.
	EchoIn, EchoOut uint64
}

// counters are the counters of Stats that gVisor and the link do not keep.
type counters struct {
	packetsIn, bytesIn, malformed atomic.Uint64
	synDuplicates, synDrops       atomic.Uint64
	accepted, rejected            atomic.Uint64
	udpIn, udpOut                 atomic.Uint64
	echoIn, echoOut               atomic.Uint64
}

// Stats returns exact counters of the stack.
func (s *Stack) Stats() Stats {
	tcp := s.gv.Stats().TCP
	st := Stats{
		PacketsIn:      s.counts.packetsIn.Load(),
		BytesIn:        s.counts.bytesIn.Load(),
		Malformed:      s.counts.malformed.Load(),
		SYNDuplicates:  s.counts.synDuplicates.Load(),
		SYNDrops:       s.counts.synDrops.Load(),
		TCPAccepted:    s.counts.accepted.Load(),
		TCPRejected:    s.counts.rejected.Load(),
		TCPOpen:        tcp.CurrentEstablished.Value(),
		TCPRetransmits: tcp.Retransmits.Value(),
		TCPTimeouts:    tcp.Timeouts.Value(),
		UDPIn:          s.counts.udpIn.Load(),
		UDPOut:         s.counts.udpOut.Load(),
		EchoIn:         s.counts.echoIn.Load(),
		EchoOut:        s.counts.echoOut.Load(),
	}
	if f := s.onTCP.Load(); f != nil {
		st.SYNInFlight = f.inFlight()
	}
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	st.PacketsOut, st.BytesOut = l.packets, l.bytes
	st.LinkWaits = l.waits
	st.Senders = uint64(len(l.senders))
	st.LinkDropsTCP, st.LinkDropsAgain, st.LinkDropsDatagram = l.dropped[budgetControl], l.dropped[budgetAgain], l.dropped[budgetDatagram]
	for _, used := range l.used {
		st.LinkQueued += uint64(used)
	}
	return st
}
