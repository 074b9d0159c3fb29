package reassembly

import (
	"bytes"
	"slices"
)

// overhead is what a held segment is counted for beside its bytes, so that many
// tiny ones are not free.
const overhead = 512

// maxWindow is the most that a receiver can grant (RFC 7323 §2.2). What is farther
// from what it has acknowledged it does not heed.
const maxWindow = 1 << 30

// A segment is a run of bytes that was captured and is not acknowledged yet.
type segment struct {
	seq  uint32
	data []byte
	turn bool // see Stream.Data
}

func (s segment) end() uint32 { return s.seq + uint32(len(s.data)) }

// before reports whether a comes before b in the circle of sequence numbers (RFC
// 9293 §3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

// half is one direction of a conversation, as somebody between the two ends sees
// it. Its numbers are the live sender's.
type half struct {
	stream Stream // nil: only the numbers are followed

	known bool      // next means something
	next  uint32    // what the receiver has acknowledged, as far as it was seen
	last  uint32    // the end of what the sender has sent; never before next
	segs  []segment // between next and last, in order, without overlaps
	held  int       // what segs are counted for
	fin   bool      // a FIN was captured
	finAt uint32    // its sequence number
	ended bool      // the stream was told
}

// start says where the direction begins.
func (h *half) start(next uint32) { h.known, h.next, h.last = true, next, next }

// send takes a captured payload. It returns what is wrong with it: the receiver
// may have taken other bytes than those that were captured.
func (h *half) send(seq uint32, data []byte, turn bool) Reason {
	if !h.known {
		h.start(seq)
	}
	if before(seq, h.next) {
		old := h.next - seq
		if old >= uint32(len(data)) {
			return none // a retransmission that the receiver did not need
		}
		seq, data, turn = h.next, data[old:], false
	}
	if len(data) == 0 || h.ended || seq-h.next > maxWindow {
		return none
	}
	h.saw(seq + uint32(len(data)))
	if h.stream == nil {
		return none
	}
	return h.insert(segment{seq: seq, data: data, turn: turn})
}

// saw notes that the sender has sent what is before end. Behind its FIN that is one more than there are bytes.
func (h *half) saw(end uint32) {
	if h.fin && end == h.finAt+1 {
		return
	}
	if h.known && before(h.last, end) && end-h.next <= maxWindow+1<<16 {
		h.last = end
	}
}

// insert adds what is new in s, and compares what is not.
func (h *half) insert(s segment) Reason {
	// Most segments come in order.
	i := len(h.segs)
	for i > 0 && before(s.seq, h.segs[i-1].end()) {
		i--
	}
	for ; i < len(h.segs) && len(s.data) > 0; i++ {
		at := h.segs[i]
		if before(s.seq, at.seq) {
			n := min(at.seq-s.seq, uint32(len(s.data)))
			h.add(i, segment{seq: s.seq, data: s.data[:n], turn: s.turn})
			i++
			s = s.from(n)
		}
		if len(s.data) == 0 {
			return none
		}
		skip := s.seq - at.seq
		n := min(uint32(len(at.data))-skip, uint32(len(s.data)))
		if !bytes.Equal(at.data[skip:skip+n], s.data[:n]) {
			return Conflict
		}
		s = s.from(n)
	}
	if len(s.data) > 0 {
		h.add(i, s)
	}
	return none
}

// from returns what follows the first n bytes of s.
func (s segment) from(n uint32) segment {
	return segment{seq: s.seq + n, data: s.data[n:], turn: s.turn && n == 0}
}

func (h *half) add(i int, s segment) {
	h.segs = slices.Insert(h.segs, i, s)
	h.held += len(s.data) + overhead
}

// finish takes a captured FIN.
func (h *half) finish(seq uint32) {
	if !h.known {
		h.start(seq)
	}
	if !h.fin && !before(seq, h.next) && seq-h.next <= maxWindow {
		h.fin, h.finAt = true, seq
	}
}

// isBehindFin reports whether bytes at seq are of another connection.
func (h *half) isBehindFin(seq uint32) bool { return h.fin && before(h.finAt, seq) }

// acknowledge hands on what the receiver has taken: all before ack.
func (h *half) acknowledge(ack uint32) {
	if !h.known {
		h.start(ack)
		return
	}
	if h.ended || !before(h.next, ack) || ack-h.next > maxWindow {
		return
	}
	closed := h.fin && ack == h.finAt+1
	if closed {
		ack--
	}
	for before(h.next, ack) {
		if len(h.segs) == 0 || h.segs[0].seq != h.next {
			h.skip(h.missing(ack), Hole)
			continue
		}
		h.take(ack)
	}
	if closed {
		h.end(false)
	}
}

// missing returns where the hole at next ends: before ack.
func (h *half) missing(ack uint32) uint32 {
	if len(h.segs) > 0 && before(h.segs[0].seq, ack) {
		return h.segs[0].seq
	}
	return ack
}

// take hands on the first segment, up to ack.
func (h *half) take(ack uint32) {
	s := h.segs[0]
	if before(ack, s.end()) {
		n := ack - s.seq
		h.segs[0] = s.from(n)
		h.held -= int(n)
		s.data = s.data[:n]
	} else {
		h.drop()
	}
	h.next = s.end()
	if h.stream != nil {
		h.stream.Data(s.data, s.turn)
	}
}

// drop forgets the first segment.
func (h *half) drop() {
	h.held -= len(h.segs[0].data) + overhead
	h.segs[0] = segment{} // for the garbage collector
	h.segs = h.segs[1:]
}

// skip gives up what is before to.
func (h *half) skip(to uint32, why Reason) {
	n := to - h.next
	h.next = to
	for len(h.segs) > 0 && before(h.segs[0].seq, to) {
		s := h.segs[0]
		if before(to, s.end()) {
			h.segs[0] = s.from(to - s.seq)
			h.held -= int(to - s.seq)
			break
		}
		h.drop()
	}
	if before(h.last, to) {
		h.last = to
	}
	if h.stream != nil && !h.ended {
		h.stream.Gap(why, uint64(n))
	}
}

// giveUp gives up everything that was captured and is not acknowledged.
func (h *half) giveUp(why Reason) { h.skip(h.last, why) }

// contiguous returns the end of what was captured without a hole.
func (h *half) contiguous() uint32 {
	at := h.next
	for _, s := range h.segs {
		if s.seq != at {
			break
		}
		at = s.end()
	}
	return at
}

// end tells the stream that the direction has ended, once.
func (h *half) end(reset bool) {
	if h.ended {
		return
	}
	h.ended = true
	h.segs, h.held = nil, 0
	if h.stream != nil {
		h.stream.End(reset)
	}
}
