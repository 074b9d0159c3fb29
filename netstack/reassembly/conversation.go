package reassembly

import (
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// A stage is how far a conversation has come.
type stage uint8

const (
	opening stage = iota // a SYN was seen that the server has not answered
	open
	over // remembered so that its last packets do not look like a new flow
	numStages
)

// overFor is how long a conversation that is over is remembered, in the time of
// the capture.
const overFor = 10 * time.Second

// A conversation is a flow in both directions.
type conversation struct {
	key            flow.Flow // from the client
	stage          stage
	at             time.Time // of the latest packet
	client, server half
	syn            *syn    // the client's; nil if it is not in the capture
	again          *syn    // may open a new conversation
	begin          *uint32 // what the server's SYN acknowledged; nil if it is not in the capture
	turned         bool    // the server has sent bytes since the client has, or the client none
	reset          bool    // it ended by a RST
	prev, next     *conversation
}

// A syn is what a client's SYN says.
type syn struct {
	seq  uint32
	data []byte // it may carry the first bytes (RFC 7413)
}

// consent reports whether ack is how a server answers s.
func (s *syn) consent(ack uint32) bool { return ack-(s.seq+1) <= uint32(len(s.data)) }

// isBegin reports whether ack is that of the SYN with which the server consented to c.
func (c *conversation) isBegin(ack uint32) bool {
	return c.begin != nil && *c.begin == ack || c.begin == nil && c.syn != nil && c.syn.consent(ack)
}

// follows reports whether a segment of the client comes soon after s.
func (s *syn) follows(seq uint32) bool { return seq-(s.seq+1) < 1<<24 }

// A list has conversations in the order of their latest packets.
type list struct {
	head conversation // of the ring
	len  int
}

func (l *list) init() { l.head.prev, l.head.next = &l.head, &l.head }

func (l *list) push(c *conversation) {
	c.prev, c.next = l.head.prev, &l.head
	c.prev.next, c.next.prev = c, c
	l.len++
}

func (l *list) remove(c *conversation) {
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	l.len--
}

func (l *list) first() *conversation { return l.head.next }

// add begins to follow a flow, which makes room if there is none.
func (a *Assembler) add(f flow.Flow, s stage, at time.Time) *conversation {
	if len(a.flows) >= a.cfg.MaxFlows {
		for _, s := range []stage{over, opening, open} {
			if l := &a.lists[s]; l.len > 0 {
				a.abandon(l.first(), Evicted)
				break
			}
		}
	}
	c := &conversation{key: f, stage: s, at: at, turned: true}
	a.flows[f] = c
	a.lists[s].push(c)
	return c
}

// expire forgets those that have been over for long.
func (a *Assembler) expire(at time.Time) {
	for old := &a.lists[over]; old.len > 0 && at.Sub(old.first().at) > overFor; {
		a.forget(old.first())
	}
}

// enter moves c to a stage.
func (a *Assembler) enter(c *conversation, s stage, at time.Time) {
	a.lists[c.stage].remove(c)
	c.stage, c.at = s, at
	a.lists[s].push(c)
}

// fromClient takes a segment of a client.
func (a *Assembler) fromClient(seg flow.Segment, at time.Time) {
	c := a.flows[seg.Flow]
	if seg.Flags&flow.SYN != 0 {
		a.synOfClient(c, seg, at)
		return
	}
	if c = a.opened(c, seg, at); c == nil || c.stage != open {
		return
	}
	a.enter(c, open, at)
	if seg.Flags&flow.RST != 0 {
		a.resetByClient(c, seg.Seq, at)
		return
	}
	a.clientData(c, seg)
	if seg.Flags&flow.ACK != 0 {
		c.server.acknowledge(seg.Ack)
	}
	a.settle(c, at)
}

// opened returns the conversation that a client's segment belongs to, and opens it
// if that shows that the server has consented: the consent is not in the capture.
func (a *Assembler) opened(c *conversation, seg flow.Segment, at time.Time) *conversation {
	consented := seg.Flags&(flow.ACK|flow.RST) == flow.ACK
	says := len(seg.Payload)+seg.Cut > 0
	another := c != nil && consented && says && c.client.isBehindFin(seg.Seq)
	switch {
	case c == nil && (!says || seg.Flags&flow.RST != 0):
		return nil // there is nothing that anybody could be told
	case c == nil:
		c = a.join(seg.Flow, at)
	case c.stage == opening && consented && c.syn.follows(seg.Seq):
		a.open(c, at)
	case c.again != nil && consented && (seg.Seq == c.again.seq+1 || another && c.again.follows(seg.Seq)):
		c = a.reopen(c, at)
	case another: // of which not even the SYN is in the capture
		a.abandon(c, Reused)
		c = a.join(seg.Flow, at)
	}
	return c
}

// join begins to follow a flow in its middle.
func (a *Assembler) join(f flow.Flow, at time.Time) *conversation {
	c := a.add(f, opening, at)
	a.open(c, at)
	return c
}

// clientData takes what the client has sent.
func (a *Assembler) clientData(c *conversation, seg flow.Segment) {
	h := &c.client
	end := seg.Seq + uint32(len(seg.Payload)+seg.Cut)
	if len(seg.Payload) > 0 {
		next := !h.known || seg.Seq == h.last // nothing is missing before it
		news := !h.known || before(h.last, end)
		turn := c.turned && next
		c.turned = c.turned && !news
		a.check(h, h.send(seg.Seq, seg.Payload, turn))
	}
	h.saw(end)
	if seg.Flags&flow.FIN != 0 {
		h.finish(end)
	}
}

// check gives up what h holds if something is wrong with it or it is too much.
func (a *Assembler) check(h *half, why Reason) {
	switch {
	case why != none:
		h.giveUp(why)
	case h.held > a.cfg.MaxHeld:
		h.giveUp(TooMuch)
	}
}

// synOfClient takes a SYN of a client.
func (a *Assembler) synOfClient(c *conversation, seg flow.Segment, at time.Time) {
	if seg.Flags&(flow.ACK|flow.RST) != 0 {
		return
	}
	s := &syn{seq: seg.Seq, data: seg.Payload}
	switch {
	case c != nil && c.stage == open && c.syn != nil && c.syn.seq == s.seq:
		return // again
	case c != nil && c.stage == open:
		c.again = s // for the server the old one may live
		return
	case c != nil:
		a.forget(c)
	}
	a.add(seg.Flow, opening, at).syn = s
}

// reopen ends c, of which the end is missing, for the one that its client has
// opened on the same addresses.
func (a *Assembler) reopen(c *conversation, at time.Time) *conversation {
	s := c.again
	a.abandon(c, Reused)
	c = a.add(c.key, opening, at)
	c.syn = s
	a.open(c, at)
	return c
}

// open tells who is interested that c exists.
func (a *Assembler) open(c *conversation, at time.Time) {
	a.enter(c, open, at)
	c.client.stream, c.server.stream = a.cfg.Open(c.key, c.syn != nil, at)
	if c.syn != nil {
		c.client.start(c.syn.seq + 1)
		if len(c.syn.data) > 0 {
			c.client.send(c.syn.seq+1, c.syn.data, true)
			c.turned = false
		}
	}
}

// fromServer takes a segment of a server; its Flow is the client's.
func (a *Assembler) fromServer(seg flow.Segment, at time.Time) {
	c := a.flows[seg.Flow]
	if seg.Flags&(flow.SYN|flow.ACK) == flow.SYN|flow.ACK {
		c = a.synOfServer(c, seg, at)
	}
	switch {
	case c == nil:
		return
	case c.stage == over:
		if c.reset && seg.Flags&(flow.ACK|flow.RST) == flow.ACK {
			a.forget(c) // the server has a connection
		}
		return
	case c.stage == opening:
		if seg.Flags&flow.RST != 0 {
			a.refused.Add(1)
			a.reset(c, at)
		}
		return
	}
	a.enter(c, open, at)
	a.serverData(c, seg)
	if seg.Flags&flow.ACK != 0 {
		c.client.acknowledge(seg.Ack)
	}
	if seg.Flags&flow.RST != 0 {
		a.reset(c, at)
		return
	}
	a.settle(c, at)
}

// synOfServer takes a server's consent, with which a conversation begins.
func (a *Assembler) synOfServer(c *conversation, seg flow.Segment, at time.Time) *conversation {
	switch {
	case c != nil && c.stage == open && c.again != nil && c.again.consent(seg.Ack):
		c = a.reopen(c, at)
	case c != nil && c.stage == open && c.isBegin(seg.Ack):
		return c // again
	case c != nil && c.stage == opening && c.syn.consent(seg.Ack):
		a.open(c, at)
	default:
		// The SYN is not in the capture, and whether it had bytes nobody knows.
		if c != nil {
			a.abandon(c, Reused)
		}
		c = a.join(seg.Flow, at)
		c.client.start(seg.Ack)
	}
	c.begin = &seg.Ack
	c.server.start(seg.Seq + 1)
	return c
}

// serverData takes what the server has sent.
func (a *Assembler) serverData(c *conversation, seg flow.Segment) {
	if seg.Flags&flow.SYN != 0 {
		seg.Seq++
	}
	h := &c.server
	end := seg.Seq + uint32(len(seg.Payload)+seg.Cut)
	if end != seg.Seq {
		c.turned = c.turned || !h.known || before(h.last, end)
		a.check(h, h.send(seg.Seq, seg.Payload, false))
		h.saw(end)
	}
	if seg.Flags&flow.FIN != 0 {
		h.finish(end)
	}
}

// resetByClient takes a client's RST. The server heeds it only at the very number
// that it expects next (RFC 5961 §3.2), so if that is what was captured until then,
// it has taken all of it.
func (a *Assembler) resetByClient(c *conversation, seq uint32, at time.Time) {
	h := &c.client
	switch {
	case !h.known:
	case before(seq, h.next), seq-h.next > maxWindow:
		return // not heeded
	case before(h.contiguous(), seq):
		h.skip(seq, Hole)
	default:
		h.acknowledge(seq)
	}
	a.reset(c, at)
}

// reset ends both directions at once.
func (a *Assembler) reset(c *conversation, at time.Time) {
	c.client.end(true)
	c.server.end(true)
	c.reset = true
	a.enter(c, over, at)
}

// settle ends the conversation once both directions have ended.
func (a *Assembler) settle(c *conversation, at time.Time) {
	if c.client.ended && c.server.ended {
		a.enter(c, over, at)
	}
}
