package link

import (
	"encoding/binary"
	"time"
)

// chunkHead is room in front of a chunk's frames for the control frames that travel in the same write.
const chunkHead = 64

// chunk is one write's datagrams, kept until the peer has them all. Its frames do not change while it is in use.
type chunk struct {
	buf   []byte // chunkHead bytes, then the frames
	first uint64 // sequence number of the first datagram
	count uint64
	at    time.Time // when it was sent first
	users int       // unacked and the writes in progress; guarded by Link.mu
}

func (c *chunk) size() int { return len(c.buf) - chunkHead }

// end is the sequence number after the last datagram.
func (c *chunk) end() uint64 { return c.first + c.count }

// from returns the frames of the datagrams from sequence number seq on.
func (c *chunk) from(seq uint64) []byte {
	frames := c.buf[chunkHead:]
	for ; seq > c.first; seq-- {
		frames = frames[frameHeader+int(binary.BigEndian.Uint16(frames)):]
	}
	return frames
}

// unacked holds what was sent until the peer says that it has it, in order. The sequence number of a datagram is how
// many were sent before it on this link, over all its carriers. Unsafe for concurrent use.
type unacked struct {
	chunks []*chunk
	bytes  int
	next   uint64       // sequence number of the next datagram
	acked  uint64       // the peer has all before it
	total  uint64       // datagrams ever sent: next, unless the peer began anew
	free   func(*chunk) // told of each chunk that is dropped
}

func (u *unacked) add(c *chunk) {
	c.first = u.next
	u.next = c.end()
	u.total += c.count
	u.chunks = append(u.chunks, c)
	u.bytes += c.size()
}

// settled returns how many of total are not on their way any more.
func (u *unacked) settled() uint64 { return u.total - (u.next - u.acked) }

// ack drops what the peer has, all before seq, and returns when the last of it was sent; zero if no chunk is done.
func (u *unacked) ack(seq uint64) (sent time.Time) {
	if seq <= u.acked || seq > u.next {
		return time.Time{}
	}
	u.acked = seq
	n := 0
	for n < len(u.chunks) && u.chunks[n].end() <= seq {
		sent = u.chunks[n].at
		n++
	}
	u.drop(n)
	return sent
}

// forget drops all: it is lost.
func (u *unacked) forget() {
	u.drop(len(u.chunks))
	u.acked = u.next
}

// drop forgets the first n chunks.
func (u *unacked) drop(n int) {
	for _, c := range u.chunks[:n] {
		u.bytes -= c.size()
		u.free(c)
	}
	k := copy(u.chunks, u.chunks[n:])
	clear(u.chunks[k:])
	u.chunks = u.chunks[:k]
}

// resume takes the peer's word on a new carrier that it had got seq datagrams before it. since is the sequence number of
// the first that was sent on this carrier. If seq cannot be of this link's, the peer has begun anew, or what it lacks was
// forgotten: what was sent before is lost, and what was sent since is counted from there.
func (u *unacked) resume(seq, since uint64) {
	if seq >= u.acked && seq <= since {
		u.ack(seq)
		return
	}
	n := 0
	for n < len(u.chunks) && u.chunks[n].first < since {
		n++
	}
	u.drop(n)
	for _, c := range u.chunks {
		c.first = seq + c.first - since
	}
	u.next, u.acked = seq+u.next-since, seq
}

// after returns the first chunk that ends after seq, or nil.
func (u *unacked) after(seq uint64) *chunk {
	for _, c := range u.chunks {
		if c.end() > seq {
			return c
		}
	}
	return nil
}
