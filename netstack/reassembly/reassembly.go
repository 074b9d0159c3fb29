// Package reassembly makes byte streams of captured TCP packets.
//
// It stands between two ends that it cannot talk to and sees copies of their
// packets, some of which are missing. What it hands on is what the live receiver
// has acknowledged, no more and no less: the receiver alone decides which of
// several copies of a byte it took, and whether it took one at all. So
//
//   - bytes that were never acknowledged are never handed on;
//   - acknowledged bytes that were not captured are a hole, known as one at once
//     since a capture shows causes before their effects;
//   - bytes that were captured in two versions before they were acknowledged are a
//     conflict: only the receiver knows which it took.
//
// A hole and a conflict are gaps of the stream. Whoever reads it decides whether
// it can go on behind one.
//
// An Assembler starts no goroutine, never blocks, and is used by one goroutine at
// a time.
package reassembly

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/mirror"
)

// A Reason says why bytes of a stream are not there.
type Reason uint8

// The reasons for gaps.
const (
	none     Reason = iota
	Hole            // acknowledged by the live receiver, not in the capture
	Conflict        // captured in two versions
	TooMuch         // more unacknowledged bytes than may be held
	Evicted         // the flow was forgotten for others
	Reused          // its end is missing: another one has its addresses now
)

// String returns the reason as a word.
func (r Reason) String() string {
	switch r {
	case Hole:
		return "hole"
	case Conflict:
		return "conflict"
	case TooMuch:
		return "too much"
	case Evicted:
		return "evicted"
	case Reused:
		return "reused"
	}
	return "none"
}

// A Stream gets what one direction of a flow carries. Its methods are called by
// whoever calls the Assembler and must not call it.
type Stream interface {
	// Data gets the next bytes, and may keep them. turn reports that with them the
	// sender began to send after the other end had sent something, or that nothing
	// was seen of it before: at such a place a request can begin.
	Data(b []byte, turn bool)
	// Gap says that n bytes are missing here.
	Gap(why Reason, n uint64)
	// End is the last call: the direction has ended, by FIN or by a reset.
	End(reset bool)
}

// Config describes an Assembler.
type Config struct {
	// Server reports whether an address is one that is mirrored.
	Server func(netip.AddrPort) bool
	// Open is called when a flow, from client to server, begins to exist for the
	// Assembler. whole reports whether its first byte will be seen. It returns who
	// gets what the client sends and what the server sends, either may be nil.
	Open func(f flow.Flow, whole bool, at time.Time) (client, server Stream)
	// MaxFlows bounds the flows that are followed; zero means 65536. The longest
	// silent one goes first.
	MaxFlows int
	// MaxHeld bounds the unacknowledged bytes of a direction; zero means 8 MiB.
	MaxHeld int
}

// Stats counts packets, exactly.
type Stats struct {
	Packets uint64 `json:"packets"`
	// Ignored are packets that are no TCP segments, or of no mirrored server.
	Ignored uint64 `json:"ignored"`
	// Refused are connections that the live server did not accept.
	Refused uint64 `json:"refused"`
	// Flows are those that are followed now.
	Flows int `json:"flows"`
}

const (
	defaultMaxFlows = 65536
	defaultMaxHeld  = 8 << 20
)

// An Assembler follows flows.
type Assembler struct {
	cfg   Config
	flows map[flow.Flow]*conversation
	lists [numStages]list

	packets, ignored, refused atomic.Uint64
	live                      atomic.Int64
}

// New returns an Assembler.
func New(cfg Config) *Assembler {
	if cfg.MaxFlows <= 0 {
		cfg.MaxFlows = defaultMaxFlows
	}
	if cfg.MaxHeld <= 0 {
		cfg.MaxHeld = defaultMaxHeld
	}
	a := &Assembler{cfg: cfg, flows: make(map[flow.Flow]*conversation)}
	for i := range a.lists {
		a.lists[i].init()
	}
	return a
}

// Stats returns the counts so far. It may be called at any time.
func (a *Assembler) Stats() Stats {
	return Stats{Packets: a.packets.Load(), Ignored: a.ignored.Load(), Refused: a.refused.Load(), Flows: int(a.live.Load())}
}

// Packet takes the next captured packet, whose bytes it keeps.
func (a *Assembler) Packet(p mirror.Packet) {
	a.packets.Add(1)
	a.expire(p.Time)
	defer func() { a.live.Store(int64(len(a.flows) - a.lists[over].len)) }()
	seg, err := flow.ParseSegment(p.Data)
	if err != nil {
		a.ignored.Add(1)
		return
	}
	fromClient, fromServer := a.cfg.Server(seg.Flow.Dst), a.cfg.Server(seg.Flow.Src)
	if fromClient && fromServer {
		// Both ports are mirrored, as when the pod calls itself. Who opened it is
		// the client.
		_, known := a.flows[seg.Flow.Reverse()]
		fromServer = known || seg.Flags&(flow.SYN|flow.ACK) == flow.SYN|flow.ACK
		fromClient = !fromServer
	}
	switch {
	case fromClient:
		a.fromClient(seg, p.Time)
	case fromServer:
		seg.Flow = seg.Flow.Reverse()
		a.fromServer(seg, p.Time)
	default:
		a.ignored.Add(1)
	}
}

// Lost gives up a flow of which the capture took nothing more. It reports whether
// the flow was followed. Of one that was over it is forgotten that it was: what comes
// next on its addresses may be another one, whose beginning is lost.
func (a *Assembler) Lost(f flow.Flow) bool {
	c := a.flows[f]
	if c == nil {
		return false
	}
	followed := c.stage != over
	a.abandon(c, Hole)
	return followed
}

// Close ends all flows where they are, as if they had been reset.
func (a *Assembler) Close() {
	for _, c := range a.flows {
		c.client.end(true)
		c.server.end(true)
		a.forget(c)
	}
	a.live.Store(0)
}

// abandon ends c, of which the end is missing, and forgets it.
func (a *Assembler) abandon(c *conversation, why Reason) {
	if c.stage == open {
		for _, h := range []*half{&c.client, &c.server} {
			if !h.ended {
				h.giveUp(why)
				h.end(true)
			}
		}
	}
	a.forget(c)
}

func (a *Assembler) forget(c *conversation) {
	a.lists[c.stage].remove(c)
	delete(a.flows, c.key)
}
