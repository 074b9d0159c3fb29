// Package link carries datagrams over one reliable byte stream at a time, the carrier, and hides that a carrier is
// lost and replaced: Send and Receive wait for the next one, and fail only when the Link is closed.
//
// A carrier is any io.ReadWriteCloser. It has no deadlines: Close has to end a Read or Write in progress, at once. On a
// new carrier the client proves its key with [Prove] and the agent admits it with [Verifier.Verify]; after that both
// ends speak frames.
//
// Datagrams arrive once and in order, over all carriers, but for those that Strand gives up: each end says how many it
// has got, the other keeps what it has sent until then, and on a new carrier sends again what is missing. What may be on
// its way unacknowledged is bounded by a window that follows the measured delay.
//
// A Link has no queue for data: Send writes to the carrier itself and so passes its back-pressure on, Receive reads
// from it. A carrier's keeper goroutine, owned by Run, writes heartbeats, acknowledgements, urgent datagrams and what must
// be sent again; Receive never waits for a write.
package link

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// State says whether a Link has a carrier.
type State uint8

// The states of a Link.
const (
	Down State = iota // no carrier: Send and Receive wait
	Up                // a carrier is in place
)

// String returns "down" or "up".
func (s State) String() string {
	if s == Up {
		return "up"
	}
	return "down"
}

const (
	defaultHeartbeat = 5 * time.Second
	defaultDead      = 15 * time.Second
	defaultGrace     = 180 * time.Second

	maxWrite = 256 << 10 // of frames coalesced into one Write
)

// Config configures a Link. Zero fields mean the defaults.
type Config struct {
	// Dial opens and proves a new carrier; nil on the agent, which gets carriers by Attach. It must honour ctx.
	Dial      func(ctx context.Context) (io.ReadWriteCloser, error)
	Heartbeat time.Duration // between pings; 5 s
	Dead      time.Duration // a carrier silent for so long is closed; 15 s
	Grace     time.Duration // Run gives up after so long without a carrier; 180 s
	Logger    *slog.Logger  // nil discards
	OnState   func(State)   // called from Run's goroutine on each change, must not block; may be nil
}

// Stats are a Link's counters.
type Stats struct {
	Up          bool
	RTT         time.Duration // of the last heartbeat answered, queueing included; 0 until then
	BytesIn     uint64        // of datagrams received
	BytesOut    uint64        // of datagrams sent
	Redials     uint64        // carriers after the first
	Window      int           // bytes that may be on their way
	Unacked     int           // bytes that are
	LastReceive time.Time     // when bytes last arrived; zero if never
}

// ErrPermanent, when an error of Config.Dial wraps it, makes Run return that error at once.
var ErrPermanent = errors.New("cannot be retried")

// ErrGrace is wrapped by Run's error when Config.Grace passed without a carrier.
var ErrGrace = errors.New("no carrier within the grace period")

// ErrBye is wrapped by Run's error when the peer has said that it ends: it will have no other carrier.
var ErrBye = errors.New("the peer has said goodbye")

// Link is a packet pipe between client and agent. Its methods may be called at the same time.
type Link struct {
	cfg    Config
	ctx    context.Context // alive until Close
	cancel context.CancelFunc

	mu       sync.Mutex    // guards the fields up to credit; never held while calling out
	cur      *carrier      // nil while there is none
	changed  chan struct{} // closed and replaced when cur changes
	carriers uint64        // attached so far
	running  bool
	endDial  context.CancelCauseFunc // of the dial in progress; nil if there is none
	stranded bool                    // what is sent is lost until there is a carrier; cur is nil then
	bye      bool                    // the peer has said goodbye

	redialing atomic.Bool // the carrier was given up by Redial

	unacked  unacked
	window   window
	onSettle func(n uint64) // set before the first carrier; may be nil
	credit   chan struct{}  // holds one; wakes a Send that waits for room in the window

	sending turn                       // held by one Send until it is done; taken before mu and a carrier's writing
	buffers [len(chunkSizes)]sync.Pool // of *chunk, by size

	receiving turn // held by one Receive until it is done; taken before mu
	in        *frameReader
	inFrom    *carrier // what in reads from; both guarded by receiving

	urgentMu sync.Mutex
	urgent   [urgentSlots][]byte // guarded by urgentMu; nil = empty

	rtt         atomic.Int64
	bytesIn     atomic.Uint64
	bytesOut    atomic.Uint64
	received    atomic.Uint64 // datagrams
	lastReceive atomic.Int64  // Unix nanoseconds, of carriers that are gone
}

// New returns a Link that has no carrier yet.
func New(cfg Config) *Link {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.Dead == 0 {
		cfg.Dead = defaultDead
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Link{
		cfg:       cfg,
		changed:   make(chan struct{}),
		sending:   make(turn, 1),
		receiving: make(turn, 1),
		credit:    make(chan struct{}, 1),
		window:    newWindow(),
	}
	l.unacked.free = l.releaseLocked
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Attach makes c, a proven carrier, the link's carrier and closes the one before. If the Link is closed, so is c.
func (l *Link) Attach(c io.ReadWriteCloser) {
	l.attach(newCarrier(c))
}

func (l *Link) attach(c *carrier) {
	l.mu.Lock()
	l.attachAndUnlock(c)
}

// attachAndUnlock is attach for who holds l.mu.
func (l *Link) attachAndUnlock(c *carrier) {
	if l.ctx.Err() != nil {
		l.mu.Unlock()
		c.close(net.ErrClosed)
		return
	}
	old := l.cur
	l.carriers++
	c.resumed, c.since = l.unacked.bytes == 0, l.unacked.next // nothing to send again: no need to wait
	l.window.reset()
	l.stranded = false
	l.setLocked(c)
	l.mu.Unlock()
	if old != nil {
		old.close(errReplaced)
	}
}

// setLocked makes c the carrier and wakes who waits for a change. The caller holds l.mu.
func (l *Link) setLocked(c *carrier) {
	if l.cur != nil {
		if at := l.cur.received(); !at.IsZero() {
			l.lastReceive.Store(at.UnixNano())
		}
	}
	l.cur = c
	close(l.changed)
	l.changed = make(chan struct{})
}

// lose closes c for cause; if it is still the carrier, there is none then.
func (l *Link) lose(c *carrier, cause error) {
	l.mu.Lock()
	if l.cur == c {
		l.setLocked(nil)
	}
	l.mu.Unlock()
	c.close(cause)
}

// current returns the carrier, or nil and a channel that is closed when that changes.
func (l *Link) current() (*carrier, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur, l.changed
}

// await waits for a carrier. Its only error is net.ErrClosed.
func (l *Link) await() (*carrier, error) {
	for {
		c, changed := l.current()
		if l.ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		if c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
		}
	}
}

// Send sends pkts, each 1 to 65535 bytes long, in as few writes as possible. It waits for room in the window and while
// the carrier takes nothing; without a carrier it keeps what fits the window for the next one. It returns
// net.ErrClosed at once after Close.
func (l *Link) Send(pkts [][]byte) error {
	for _, p := range pkts {
		if len(p) == 0 || len(p) > maxDatagram {
			return fmt.Errorf("send datagram of %d bytes: %w", len(p), syscall.EMSGSIZE)
		}
	}
	if !l.sending.take(l.ctx.Done()) {
		return net.ErrClosed
	}
	defer l.sending.pass()
	for len(pkts) > 0 {
		n, err := l.sendSome(pkts)
		if err != nil {
			return err
		}
		pkts = pkts[n:]
	}
	return nil
}

// sendSome sends the first n of pkts: as many as fit one write and the window. The caller holds l.sending.
func (l *Link) sendSome(pkts [][]byte) (n int, err error) {
	room, err := l.awaitRoom(frameHeader + len(pkts[0]))
	if err != nil {
		return 0, err
	}
	frames := 0
	for _, p := range pkts {
		if n > 0 && frames+frameHeader+len(p) > min(room, maxWrite) {
			break
		}
		frames += frameHeader + len(p)
		n++
	}
	out := l.newChunk(frames)
	for _, p := range pkts[:n] {
		out.buf = appendDatagram(out.buf, p)
	}
	size := uint64(frames - n*frameHeader)
	out.count, out.at = uint64(n), time.Now()

	l.mu.Lock()
	l.unacked.add(out)
	c := l.cur
	if c != nil && !c.resumed {
		c = nil // its keeper sends what is unacknowledged
	}
	if c != nil {
		out.users++
	}
	lost := l.stranded
	if lost {
		l.unacked.forget()
	}
	l.mu.Unlock()
	if lost {
		l.settle()
		return n, nil
	}
	l.bytesOut.Add(size)
	if c == nil {
		return n, nil
	}
	if err := c.writeChunk(out); err != nil {
		l.lose(c, fmt.Errorf("write: %w", err))
	}
	l.mu.Lock()
	l.releaseLocked(out)
	l.mu.Unlock()
	return n, nil
}

// awaitRoom waits until the window has room for size bytes, or is empty, and returns how much room there is.
func (l *Link) awaitRoom(size int) (int, error) {
	for {
		l.mu.Lock()
		room := l.window.size - l.unacked.bytes
		if room >= size || l.unacked.bytes == 0 {
			l.mu.Unlock()
			if l.ctx.Err() != nil {
				return 0, net.ErrClosed
			}
			return max(room, size), nil
		}
		l.window.limited = true
		l.mu.Unlock()
		select {
		case <-l.credit:
		case <-l.ctx.Done():
			return 0, net.ErrClosed
		}
	}
}

// newChunk returns an empty chunk with room for so many bytes of frames.
func (l *Link) newChunk(size int) *chunk {
	i := slices.IndexFunc(chunkSizes[:], func(s int) bool { return size <= s })
	if size < smallChunk || i < 0 {
		return &chunk{buf: make([]byte, chunkHead, chunkHead+size), users: 1}
	}
	c, ok := l.buffers[i].Get().(*chunk)
	if !ok {
		c = &chunk{buf: make([]byte, 0, chunkHead+chunkSizes[i])}
	}
	*c = chunk{buf: c.buf[:chunkHead], users: 1}
	return c
}

// smallChunk is the size of a write up to which its chunk is not used again.
const smallChunk = 4 << 10

// chunkSizes are how much the other chunks take: a chunk is kept until it is acknowledged, so one that is too large for
// what is in it costs more memory than the window says. The second takes the largest datagram.
var chunkSizes = [...]int{16 << 10, 66 << 10, maxWrite}

// releaseLocked drops a use of c. The caller holds l.mu.
func (l *Link) releaseLocked(c *chunk) {
	if c.users--; c.users > 0 {
		return
	}
	if i := slices.Index(chunkSizes[:], cap(c.buf)-chunkHead); i >= 0 {
		l.buffers[i].Put(c)
	}
}

// acknowledged takes the peer's word that it has got all datagrams before seq.
func (l *Link) acknowledged(seq uint64) {
	now := time.Now()
	l.mu.Lock()
	if sent := l.unacked.ack(seq); !sent.IsZero() {
		l.window.acked(seq, l.unacked.next, now.Sub(sent), now)
	}
	l.mu.Unlock()
	l.settle()
}

// settle tells that less is unacknowledged: a Send that waits for room, and who is interested.
func (l *Link) settle() {
	select {
	case l.credit <- struct{}{}:
	default:
	}
	l.mu.Lock()
	on, settled := l.onSettle, l.unacked.settled()
	l.mu.Unlock()
	if on != nil {
		on(settled)
	}
}

// OnSettle has f told that the first n datagrams given to Send have arrived, or are lost: with a peer that began anew, or by
// Strand. Receive, Send and Strand call f, which must not block. It must be set before the first carrier.
func (l *Link) OnSettle(f func(n uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onSettle = f
}

// Sent returns how many datagrams Send has taken.
func (l *Link) Sent() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unacked.total
}

// Receive reads at least one datagram into bufs and their lengths into sizes, and returns how many. It takes
// several only if they are here already. It waits while there is no carrier; its only error is net.ErrClosed. A
// datagram longer than its buffer is lost.
func (l *Link) Receive(bufs [][]byte, sizes []int) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	if !l.receiving.take(l.ctx.Done()) {
		return 0, net.ErrClosed
	}
	defer l.receiving.pass()
	for {
		c, err := l.await()
		if err != nil {
			return 0, err
		}
		l.readFromLocked(c)
		n, err := l.in.read(bufs, sizes)
		l.received.Add(l.in.takeCount())
		if n > 0 {
			total := 0
			for _, size := range sizes[:n] {
				total += size
			}
			l.bytesIn.Add(uint64(total))
			c.owe(l.received.Load(), total)
			return n, nil
		}
		l.lose(c, fmt.Errorf("read: %w", err))
	}
}

// readFromLocked makes l.in read from c. The caller holds l.receiving.
func (l *Link) readFromLocked(c *carrier) {
	if l.inFrom == c {
		return
	}
	if l.in == nil {
		l.in = &frameReader{br: bufio.NewReaderSize(nil, readBuffer)}
	}
	l.in.br.Reset(c) // what is left of a datagram of the carrier before is dropped
	l.in.control = func(code byte, payload []byte) { l.control(c, code, payload) }
	l.inFrom = c
	c.tellResume(l.received.Load())
}

// control takes a control frame that came on c.
func (l *Link) control(c *carrier, code byte, payload []byte) {
	if code == codeBye {
		if l.cfg.Dial == nil {
			return // only an agent says it
		}
		l.mu.Lock()
		l.bye = true
		l.mu.Unlock()
		l.lose(c, ErrBye)
		return
	}
	if len(payload) != tokenLen {
		return
	}
	switch code {
	case codePing:
		c.pinged([tokenLen]byte(payload))
	case codePong:
		if rtt, ok := c.ponged(binary.BigEndian.Uint64(payload)); ok {
			l.rtt.Store(int64(rtt))
		}
	case codeAck:
		l.acknowledged(binary.BigEndian.Uint64(payload))
	case codeResume:
		l.mu.Lock()
		if !c.resumed {
			c.since = l.unacked.next
		}
		l.unacked.resume(binary.BigEndian.Uint64(payload), c.since)
		c.asked = true
		l.mu.Unlock()
		c.wake()
		l.settle()
	}
}

// Redial gives the carrier up although it works, or ends the dial of one, because Config.Dial would get a better one. It is called
// again at once, unless the link pauses after a dial that failed. If it gets one, Config.OnState is not told.
func (l *Link) Redial() {
	l.mu.Lock()
	if l.endDial != nil {
		l.endDial(errReplaced)
	}
	c := l.cur
	if c != nil {
		l.redialing.Store(true)
		l.setLocked(nil)
	}
	l.mu.Unlock()
	if c != nil {
		c.close(errReplaced)
	}
}

// Strand gives up what is unacknowledged, and what is sent until there is a carrier: who sends has another way. That is lost,
// and settled for OnSettle. It reports whether it did: not if there is a carrier. It works on a Link that is closed, too.
func (l *Link) Strand() bool {
	l.mu.Lock()
	lost := l.cur == nil
	if lost {
		l.stranded = true
		l.unacked.forget()
	}
	l.mu.Unlock()
	if lost {
		l.settle()
	}
	return lost
}

// Leave tells the peer that this end ends for good, whose Run then returns ErrBye. It returns when the peer has closed the
// carrier, at once if there is none, or when ctx ends; the Link has to be closed then. Needs Run, and somebody who receives.
func (l *Link) Leave(ctx context.Context) {
	c, _ := l.current()
	if c == nil {
		return
	}
	c.leave()
	select {
	case <-c.done:
	case <-ctx.Done():
	}
}

// hasBye reports whether the peer has said goodbye.
func (l *Link) hasBye() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bye
}

// Close ends the link and closes its carrier: Send, Receive and Run return. It returns nil, also when called again.
func (l *Link) Close() error {
	l.mu.Lock()
	l.cancel()
	c := l.cur
	if c != nil {
		l.setLocked(nil)
	}
	l.mu.Unlock()
	if c != nil {
		c.close(net.ErrClosed)
	}
	return nil
}

// Stats returns the counters.
func (l *Link) Stats() Stats {
	s := Stats{
		RTT:      time.Duration(l.rtt.Load()),
		BytesIn:  l.bytesIn.Load(),
		BytesOut: l.bytesOut.Load(),
	}
	if nano := l.lastReceive.Load(); nano != 0 {
		s.LastReceive = time.Unix(0, nano)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Window, s.Unacked = l.window.size, l.unacked.bytes
	if l.carriers > 1 {
		s.Redials = l.carriers - 1
	}
	if l.cur != nil {
		s.Up = true
		if at := l.cur.received(); !at.IsZero() {
			s.LastReceive = at
		}
	}
	return s
}
