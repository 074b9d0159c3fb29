// Package link carries datagrams over one reliable byte stream at a time, the carrier, and hides that a carrier is
// lost and replaced: Send and Receive wait for the next one, and fail only when the Link is closed.
//
// A carrier is any io.ReadWriteCloser, without deadlines: closing it is the only way to end a Read or Write in progress,
// and must do so at once. On a new carrier the client proves its key with [Prove] and the agent admits it with
// [Verifier.Verify]; after that both ends speak frames.
//
// Datagrams arrive in order. On the loss of a carrier those on their way are lost, except the batch whose write
// failed, which is written again whole; the receiver may see its head twice.
//
// A Link has no queue for data: Send writes to the carrier itself and so passes its back-pressure on, Receive reads
// from it. A carrier's keeper goroutine, owned by Run, writes heartbeats and urgent datagrams; Receive never waits
// for a write.
package link

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	BytesOut    uint64        // of datagrams written
	Redials     uint64        // carriers after the first
	LastReceive time.Time     // when bytes last arrived; zero if never
}

// ErrPermanent, when an error of Config.Dial wraps it, makes Run return that error at once.
var ErrPermanent = errors.New("cannot be retried")

// ErrGrace is wrapped by Run's error when Config.Grace passed without a carrier.
var ErrGrace = errors.New("no carrier within the grace period")

// Link is a packet pipe between client and agent. Its methods may be called at the same time.
type Link struct {
	cfg    Config
	ctx    context.Context // alive until Close
	cancel context.CancelFunc

	mu       sync.Mutex    // guards the fields below; never held while calling out
	cur      *carrier      // nil while there is none
	changed  chan struct{} // closed and replaced when cur changes
	carriers uint64        // attached so far
	running  bool

	sending turn   // held by one Send until it is done; taken before mu and a carrier's writing
	out     []byte // frames of the Write in progress; guarded by sending

	receiving turn // held by one Receive until it is done; taken before mu
	in        *frameReader
	inFrom    *carrier // what in reads from; both guarded by receiving

	urgentMu sync.Mutex
	urgent   [urgentSlots][]byte // guarded by urgentMu; nil = empty

	rtt         atomic.Int64
	bytesIn     atomic.Uint64
	bytesOut    atomic.Uint64
	lastReceive atomic.Int64 // Unix nanoseconds, of carriers that are gone
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
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Attach makes c, a proven carrier, the link's carrier and closes the one before. If the Link is closed, so is c.
func (l *Link) Attach(c io.ReadWriteCloser) {
	l.attach(newCarrier(c))
}

func (l *Link) attach(c *carrier) {
	l.mu.Lock()
	if l.ctx.Err() != nil {
		l.mu.Unlock()
		c.close(net.ErrClosed)
		return
	}
	old := l.cur
	l.carriers++
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

// Send writes pkts, each 1 to 65535 bytes long, coalesced into as few writes as possible. It waits while there is
// no carrier or the carrier takes nothing, and returns net.ErrClosed at once after Close.
func (l *Link) Send(pkts [][]byte) error {
	for _, p := range pkts {
		if len(p) == 0 || len(p) > maxDatagram {
			return fmt.Errorf("send datagram of %d bytes: %w", len(p), syscall.EMSGSIZE)
		}
	}
	if len(pkts) == 0 {
		return nil
	}
	if !l.sending.take(l.ctx.Done()) {
		return net.ErrClosed
	}
	defer l.sending.pass()
	for len(pkts) > 0 {
		n, size := l.coalesceLocked(pkts)
		if err := l.writeLocked(); err != nil {
			return err
		}
		l.bytesOut.Add(size)
		pkts = pkts[n:]
	}
	return nil
}

// coalesceLocked fills l.out with the first n of pkts, which have size bytes. The caller holds l.sending.
func (l *Link) coalesceLocked(pkts [][]byte) (n int, size uint64) {
	l.out = l.out[:0]
	for _, p := range pkts {
		if n > 0 && len(l.out)+frameHeader+len(p) > maxWrite {
			break
		}
		l.out = appendDatagram(l.out, p)
		size += uint64(len(p))
		n++
	}
	return n, size
}

// writeLocked writes l.out to a carrier, whole: to the next one if it is lost. The caller holds l.sending.
func (l *Link) writeLocked() error {
	for {
		c, err := l.await()
		if err != nil {
			return err
		}
		if err = c.write(l.out); err == nil {
			return nil
		}
		l.lose(c, fmt.Errorf("write: %w", err))
	}
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
		if n > 0 {
			for _, size := range sizes[:n] {
				l.bytesIn.Add(uint64(size))
			}
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
	l.in.control = func(code byte, payload []byte) {
		if rtt, ok := c.control(code, payload); ok {
			l.rtt.Store(int64(rtt))
		}
	}
	l.inFrom = c
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
