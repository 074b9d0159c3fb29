// Package mirrortest makes captured packets for tests.
package mirrortest

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/mirror"
)

// Packet returns seg as an IP packet. Its checksums are zero, as those of packets
// that have not left their host may be.
func Packet(seg flow.Segment) []byte {
	src, dst := seg.Flow.Src, seg.Flow.Dst
	tcp := 20 + len(seg.Payload)
	var pkt []byte
	if src.Addr().Is4() {
		pkt = make([]byte, 20, 20+tcp)
		pkt[0], pkt[8], pkt[9] = 4<<4|5, 64, byte(flow.TCP)
		binary.BigEndian.PutUint16(pkt[2:], uint16(20+tcp+seg.Cut))
		copy(pkt[12:], src.Addr().AsSlice())
		copy(pkt[16:], dst.Addr().AsSlice())
	} else {
		pkt = make([]byte, 40, 40+tcp)
		pkt[0], pkt[6], pkt[7] = 6<<4, byte(flow.TCP), 64
		binary.BigEndian.PutUint16(pkt[4:], uint16(tcp+seg.Cut))
		copy(pkt[8:], src.Addr().AsSlice())
		copy(pkt[24:], dst.Addr().AsSlice())
	}
	pkt = binary.BigEndian.AppendUint16(pkt, src.Port())
	pkt = binary.BigEndian.AppendUint16(pkt, dst.Port())
	pkt = binary.BigEndian.AppendUint32(pkt, seg.Seq)
	pkt = binary.BigEndian.AppendUint32(pkt, seg.Ack)
	pkt = append(pkt, 5<<4, seg.Flags, 0xff, 0xff, 0, 0, 0, 0)
	return append(pkt, seg.Payload...)
}

// A Conversation makes the packets of one TCP connection, each call one packet, in
// the order in which a capture on the server's side sees them.
type Conversation struct {
	Flow           flow.Flow // from the client
	Client, Server uint32    // the next sequence numbers
	Now            time.Time // of the next packet
	Out            func(mirror.Packet)
}

// New returns a Conversation that has not begun.
func New(client, server netip.AddrPort, out func(mirror.Packet)) *Conversation {
	return &Conversation{
		Flow:   flow.Flow{Proto: flow.TCP, Src: client, Dst: server},
		Client: 0xfffffff0, Server: 0x7ffffff0, // both wrap soon, one of them as a signed number
		Now: time.Unix(1, 0), Out: out,
	}
}

func (c *Conversation) emit(seg flow.Segment) {
	c.Now = c.Now.Add(time.Millisecond)
	data := Packet(seg)
	c.Out(mirror.Packet{Time: c.Now, Data: data, Wire: len(data) + seg.Cut})
}

// FromClient makes a packet of the client.
func (c *Conversation) FromClient(flags uint8, payload string) {
	c.emit(flow.Segment{Flow: c.Flow, Seq: c.Client, Ack: c.Server, Flags: flags, Payload: []byte(payload)})
	c.Client += length(flags, payload)
}

// FromServer makes a packet of the server, which acknowledges all that the client
// has sent.
func (c *Conversation) FromServer(flags uint8, payload string) {
	c.emit(flow.Segment{Flow: c.Flow.Reverse(), Seq: c.Server, Ack: c.Client, Flags: flags, Payload: []byte(payload)})
	c.Server += length(flags, payload)
}

// length is what a segment is in sequence numbers.
func length(flags uint8, payload string) uint32 {
	n := uint32(len(payload))
	if flags&(flow.SYN|flow.FIN) != 0 {
		n++
	}
	return n
}

// Open makes the handshake.
func (c *Conversation) Open() {
	c.FromClient(flow.SYN, "")
	c.FromServer(flow.SYN|flow.ACK, "")
	c.FromClient(flow.ACK, "")
}

// Ask makes the client say something, and the server acknowledge it.
func (c *Conversation) Ask(payload string) {
	c.FromClient(flow.ACK|flow.PSH, payload)
	c.FromServer(flow.ACK, "")
}

// Answer makes the server say something, and the client acknowledge it.
func (c *Conversation) Answer(payload string) {
	c.FromServer(flow.ACK|flow.PSH, payload)
	c.FromClient(flow.ACK, "")
}

// Close makes the client end first.
func (c *Conversation) Close() {
	c.FromClient(flow.FIN|flow.ACK, "")
	c.FromServer(flow.FIN|flow.ACK, "")
	c.FromClient(flow.ACK, "")
}
