package link

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errSilent   = errors.New("nothing heard from the peer")
	errReplaced = errors.New("replaced by a newer carrier")
)

// carrier is a proven stream and its liveness.
//
// A carrier is dead when a Read has waited for Config.Dead and no byte came. Any byte counts as life, not only
// a pong: while data is queued before the pong the peer is alive, and that a Write of ours is blocked says nothing, it is how
// a peer that cannot follow slows us down. Time in which we do not read does not count either: then it is
// we who do not listen. Both ends ping on their own account, so an end that listens hears something at each
// heartbeat as long as the other end and everything between live.
type carrier struct {
	rwc   io.ReadWriteCloser
	epoch time.Time // of the times below

	reading  atomic.Bool  // a Read is in progress
	heard    atomic.Int64 // when it began or bytes came last
	lastByte atomic.Int64 // when bytes came last, 0 = never

	kick chan struct{} // wakes the keeper; holds one
	done chan struct{} // closed by close
	over atomic.Bool   // close was called
	err  error         // why; valid once done is closed

	writing turn // held across a Write, however long it blocks
	torn    bool // a Write failed, perhaps within a frame: nothing may follow; guarded by writing

	// Guarded by Link.mu.
	asked   bool   // the peer has said what it got before this carrier
	resumed bool   // what was unacknowledged is sent again, new data may follow
	since   uint64 // sequence number of the first datagram sent on this carrier

	controlMu sync.Mutex // guards the fields below; never held while blocking
	pingSeq   uint64
	pingSent  time.Time // zero when the last ping was answered
	pingDue   bool
	pong      [tokenLen]byte // what the peer's last ping carried
	pongDue   bool
	had       uint64      // datagrams received on the link before this carrier
	resumeDue bool        // to say so
	got       uint64      // datagrams received on the link
	owed      int         // bytes received that are not acknowledged
	ackTimer  *time.Timer // nil before the first datagram
	armed     bool        // ackTimer runs
	byeDue    bool
}

// When data is acknowledged: after so many bytes, or after a while, or with whatever is written. An acknowledgement that
// travels alone wakes every process on the way. Half of the smallest window is the most: the other half is on its way
// meanwhile.
const (
	ackEvery = minWindow / 2
	ackAfter = 20 * time.Millisecond
)

func newCarrier(rwc io.ReadWriteCloser) *carrier {
	return &carrier{
		rwc:     rwc,
		epoch:   time.Now(),
		kick:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		writing: make(turn, 1),
	}
}

// Read reads from the stream and keeps the times by which it is judged.
func (c *carrier) Read(p []byte) (int, error) {
	c.heard.Store(int64(time.Since(c.epoch)))
	c.reading.Store(true)
	n, err := c.rwc.Read(p)
	c.reading.Store(false)
	if n > 0 {
		c.lastByte.Store(int64(time.Since(c.epoch)))
	}
	return n, err
}

// received returns when bytes last came; zero if never.
func (c *carrier) received() time.Time {
	at := time.Duration(c.lastByte.Load())
	if at == 0 {
		return time.Time{}
	}
	return c.epoch.Add(at)
}

// silent returns for how long a reader has been waiting in vain.
func (c *carrier) silent() time.Duration {
	if !c.reading.Load() {
		return 0
	}
	return time.Since(c.epoch) - time.Duration(c.heard.Load())
}

// write writes whole frames. After an error the carrier must be closed.
func (c *carrier) write(frames []byte) error {
	if !c.writing.take(c.done) {
		return io.ErrClosedPipe
	}
	defer c.writing.pass()
	return c.writeLocked(frames)
}

// writeChunk writes b's frames, and before them the control frames that are due.
func (c *carrier) writeChunk(b *chunk) error {
	if !c.writing.take(c.done) {
		return io.ErrClosedPipe
	}
	defer c.writing.pass()
	var room [chunkHead]byte
	due := c.appendDue(room[:0])
	start := chunkHead - len(due)
	copy(b.buf[start:], due)
	return c.writeLocked(b.buf[start:])
}

// writeDue writes the control frames that are due, and what before appends, ahead of the data that waits.
func (c *carrier) writeDue(b []byte, before func([]byte) []byte) error {
	if !c.writing.take(c.done) {
		return io.ErrClosedPipe
	}
	defer c.writing.pass()
	b = c.appendDue(before(b))
	if len(b) == 0 {
		return nil
	}
	return c.writeLocked(b)
}

// writeLocked writes whole frames. The caller holds c.writing.
func (c *carrier) writeLocked(frames []byte) error {
	if c.torn {
		return io.ErrClosedPipe
	}
	err := writeAll(c.rwc, frames)
	c.torn = err != nil
	return err
}

// close closes the stream, which makes Read and Write return. Only the first call does anything.
func (c *carrier) close(cause error) {
	if c.over.Swap(true) {
		return
	}
	c.err = cause
	close(c.done)
	c.rwc.Close()
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	if c.ackTimer != nil {
		c.ackTimer.Stop()
	}
}

// wake makes the keeper send what is due.
func (c *carrier) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// ping makes a ping due.
func (c *carrier) ping() {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	if c.pingSent.IsZero() {
		c.pingSeq++ // else repeat the one not answered yet: it is a sign of life, and a late answer a true time
	}
	c.pingDue = true
}

// pinged makes a pong due. One is due at most: a peer that pings faster than we can write gets fewer answers.
func (c *carrier) pinged(token [tokenLen]byte) {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	c.pong, c.pongDue = token, true
	c.wake()
}

// ponged returns the round trip time if seq is that of our last ping.
func (c *carrier) ponged(seq uint64) (rtt time.Duration, ok bool) {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	if c.pingSent.IsZero() || seq != c.pingSeq {
		return 0, false
	}
	rtt = time.Since(c.pingSent)
	c.pingSent = time.Time{}
	return rtt, true
}

// tellResume makes it due to tell the peer that had datagrams were received before this carrier.
func (c *carrier) tellResume(had uint64) {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	c.had, c.resumeDue = had, true
	c.wake()
}

// leave makes a goodbye due.
func (c *carrier) leave() {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	c.byeDue = true
	c.wake()
}

// owe notes that size bytes came and that got datagrams are received now, to be acknowledged soon.
func (c *carrier) owe(got uint64, size int) {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	c.got = got
	c.owed += size
	switch {
	case c.owed >= ackEvery:
		c.wake()
	case c.armed || c.over.Load():
	case c.ackTimer == nil:
		c.ackTimer = time.AfterFunc(ackAfter, c.ackLate)
		c.armed = true
	default:
		c.ackTimer.Reset(ackAfter)
		c.armed = true
	}
}

// ackLate acknowledges what found nothing to travel with.
func (c *carrier) ackLate() {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	c.armed = false
	if c.owed > 0 {
		c.wake()
	}
}

// appendDue appends the control frames that are due, at most chunkHead bytes, and marks them as sent. An
// acknowledgement is due as soon as something is written anyway.
func (c *carrier) appendDue(b []byte) []byte {
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	if c.resumeDue {
		b = appendControl(b, codeResume, binary.BigEndian.AppendUint64(nil, c.had))
		c.resumeDue = false
	}
	if c.owed > 0 {
		b = appendControl(b, codeAck, binary.BigEndian.AppendUint64(nil, c.got))
		c.owed = 0
	}
	if c.pongDue {
		b = appendControl(b, codePong, c.pong[:])
		c.pongDue = false
	}
	if c.pingDue {
		b = appendControl(b, codePing, binary.BigEndian.AppendUint64(nil, c.pingSeq))
		c.pingDue = false
		if c.pingSent.IsZero() {
			c.pingSent = time.Now()
		}
	}
	if c.byeDue {
		b = appendControl(b, codeBye, nil)
		c.byeDue = false
	}
	return b
}
