// Package mirror names what the two halves of mirroring share: the capture in
// the agent, which takes packets of live flows, and the replay on the laptop,
// which makes streams of them.
package mirror

import (
	"context"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// A Packet is one captured packet of a mirrored flow.
type Packet struct {
	Time  time.Time
	Iface uint8  // index into the interfaces that the capture announced
	Data  []byte // an IP packet; owned by the receiver
	Wire  int    // its length on the wire; more than len(Data) where it was cut
}

// Lost says what the capture did not take.
type Lost struct {
	// Flow is the flow that was given up, from the client to the server. The
	// zero Flow stands for packets that the kernel dropped, or that came when
	// there were too many flows to count apart: whoever replays finds the holes.
	Flow           flow.Flow
	Packets, Bytes uint64 // bytes that the client has sent, each once
}

// A Source is where packets come from: both directions of each mirrored flow,
// in the order in which they were captured.
type Source interface {
	// Next waits for the next packet. io.EOF: the capture has ended.
	Next(ctx context.Context) (Packet, error)
}

// A Replayer takes packets, by one goroutine.
type Replayer interface {
	Packet(Packet)
	Lost(Lost)
	Close() error
}
