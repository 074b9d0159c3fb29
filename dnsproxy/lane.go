package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// A lane carries so many queries at a time. The agent's queue for one UDP socket has room for twice as many, and so
	// has the kernel for the answers.
	laneInFlight = 32

	// A lane is given up after so many queries or so long: who wants to forge answers has to find a new port each time.
	// The agent keeps a socket in the pod per lane, which is why not each query has one of its own.
	laneQueries = 1024
	laneLife    = 10 * time.Second

	maxStrange = 32 // messages that belong to no query, before a lane is given up
)

var (
	errStrange  = errors.New("too many messages that are no answer to a query")
	errMismatch = errors.New("the answer is about another question")
	errLaneOver = errors.New("the connection was closed")
)

// lane is one socket to a nameserver, shared by queries in flight. Over TCP they are pipelined and answered in any
// order (RFC 7766 §6.2.1).
type lane struct {
	network string
	server  netip.AddrPort
	patient time.Duration // of dialling and of each write
	ready   chan struct{} // closed once conn or err is set
	writing sync.Mutex    // over TCP; taken before mu

	mu      sync.Mutex
	conn    io.WriteCloser // a net.Conn over TCP
	err     error          // why it is over, nil while it is not
	waiting map[uint16]*waiter
	active  int // of waiting, those that are still waited for
	queries int // taken so far
	strange int
	born    time.Time
	idle    *time.Timer   // ends a lane without queries; nil until conn is set
	ended   chan struct{} // closed with err
}

// waiter is a query on a lane.
type waiter struct {
	query   *dns.Msg
	answer  chan *dns.Msg // has room for one
	left    bool          // nobody waits for the answer any more
	settled func()        // if not nil, called when the answer is there or the lane has ended; it does not block
}

func newLane(network string, server netip.AddrPort, patient time.Duration) *lane {
	return &lane{
		network: network, server: server, patient: patient, ready: make(chan struct{}), ended: make(chan struct{}),
		waiting: make(map[uint16]*waiter), born: time.Now(),
	}
}

// run dials and hands answers to those who wait for them until the lane is over: by an error, by fail, or because ctx
// ended.
func (l *lane) run(ctx context.Context, dial func(context.Context, string, netip.AddrPort) (net.Conn, error)) {
	dialling, cancel := context.WithTimeout(ctx, l.patient)
	conn, err := dial(dialling, l.network, l.server)
	cancel()
	if err != nil {
		l.fail(fmt.Errorf("dial %s %v: %w", l.network, l.server, err))
		close(l.ready)
		return
	}
	l.mu.Lock()
	l.conn = conn
	over := l.err != nil
	l.idle = time.AfterFunc(laneLife, l.rest)
	l.mu.Unlock()
	close(l.ready)
	if over {
		conn.Close()
		return
	}
	defer context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })()
	l.read(conn)
}

// open makes l ready by datagrams, which has no need of run.
func (l *lane) open(datagrams func(netip.AddrPort, func([]byte, error)) (io.WriteCloser, error)) {
	defer close(l.ready)
	conn, err := datagrams(l.server, l.receive)
	if err != nil {
		l.fail(fmt.Errorf("dial %s %v: %w", l.network, l.server, err))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn = conn; l.err != nil {
		conn.Close()
		return
	}
	l.idle = time.AfterFunc(laneLife, l.rest)
}

// stay keeps l until it is over or ctx has ended.
func (l *lane) stay(ctx context.Context) {
	select {
	case <-ctx.Done():
		l.fail(context.Cause(ctx))
	case <-l.ended:
	}
}

// receive takes a datagram, or an error in the place of one.
func (l *lane) receive(payload []byte, err error) {
	if err != nil {
		l.fail(fmt.Errorf("receive answer: %w", err))
		return
	}
	l.handWire(payload[:min(len(payload), maxUDPSize)])
}

// read reads until the lane is over.
func (l *lane) read(conn net.Conn) {
	buf := make([]byte, maxUDPSize)
	for {
		var wire []byte
		var err error
		if l.network == "tcp" {
			wire, err = readFrame(conn)
		} else {
			var n int
			n, err = conn.Read(buf)
			wire = buf[:n]
		}
		if err != nil {
			l.fail(fmt.Errorf("receive answer: %w", err))
			return
		}
		l.handWire(wire)
	}
}

func (l *lane) handWire(wire []byte) {
	msg := new(dns.Msg)
	if err := msg.Unpack(wire); err != nil {
		msg = nil
	}
	if w := l.hand(msg); w != nil && w.settled != nil {
		w.settled()
	}
}

// hand gives msg to the query that it answers. A datagram that answers none is late, forged or broken, which must not
// end the wait for the true one; a few of them are borne. On a connection it is the nameserver's own. It returns who has
// waited for the answer, if somebody has.
func (l *lane) hand(msg *dns.Msg) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	var w *waiter
	if msg != nil {
		w = l.waiting[msg.Id]
	}
	if w == nil || !answers(msg, w.query) {
		if l.strange++; l.strange >= maxStrange {
			l.failLocked(errStrange)
		} else if l.network == "tcp" {
			l.failLocked(errMismatch)
		}
		return nil
	}
	delete(l.waiting, msg.Id)
	if w.left {
		return nil
	}
	w.answer <- msg
	l.leaveLocked()
	return w
}

// take joins m to the lane under an ID of its own, and returns nil if there was no room.
func (l *lane) take(m *dns.Msg, settled func()) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.active >= laneInFlight || l.spentLocked() {
		return nil
	}
	for {
		m.Id = dns.Id()
		if _, taken := l.waiting[m.Id]; !taken {
			break
		}
	}
	w := &waiter{query: m, answer: make(chan *dns.Msg, 1), settled: settled}
	l.waiting[m.Id] = w
	l.active++
	l.queries++
	return w
}

// spentLocked reports whether the lane takes no new queries.
func (l *lane) spentLocked() bool {
	return l.queries >= laneQueries || time.Since(l.born) >= laneLife && l.network == "udp"
}

// leave ends the wait of w. An answer that comes yet is known not to be strange.
func (l *lane) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[w.query.Id] != w || w.left {
		return
	}
	w.left = true
	if l.network == "tcp" {
		l.queries = laneQueries // it may be stuck: the next query gets a connection of its own
	}
	l.leaveLocked()
}

// leaveLocked notes that one query less is waited for.
func (l *lane) leaveLocked() {
	l.active--
	switch {
	case l.active > 0 || l.err != nil:
	case l.spentLocked():
		l.failLocked(errLaneOver)
	case l.idle != nil:
		l.idle.Reset(laneLife)
	}
}

// rest ends a lane that has had nothing to do.
func (l *lane) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active == 0 {
		l.failLocked(errLaneOver)
	}
}

// fail ends the lane and the waits on it.
func (l *lane) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(err)
}

func (l *lane) failLocked(err error) {
	if l.err != nil {
		return
	}
	l.err = err
	if l.idle != nil {
		l.idle.Stop()
	}
	if l.conn != nil {
		l.conn.Close()
	}
	close(l.ended)
	for _, w := range l.waiting {
		if !w.left && w.settled != nil {
			go w.settled() // which may need what the caller has locked
		}
	}
	l.waiting = nil
}

// usedBefore reports whether the lane had a query before its latest one.
func (l *lane) usedBefore() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queries > 1
}

func (l *lane) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

// roundTrip sends the query of w, which take returned, and waits for its answer until ctx ends.
func (l *lane) roundTrip(ctx context.Context, w *waiter) (*dns.Msg, error) {
	defer l.leave(w)
	select {
	case <-l.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s %v: %w", l.network, l.server, context.Cause(ctx))
	}
	if err := l.send(w.query); err != nil {
		return nil, err
	}
	return l.await(ctx, w)
}

// await waits for the answer to w, which has been sent. One that is there already is taken however late it is now.
func (l *lane) await(ctx context.Context, w *waiter) (*dns.Msg, error) {
	select {
	case msg := <-w.answer:
		return msg, nil
	default:
	}
	select {
	case msg := <-w.answer:
		return msg, nil
	case <-l.ended:
		l.mu.Lock()
		defer l.mu.Unlock()
		return nil, l.err
	case <-ctx.Done():
		return nil, fmt.Errorf("receive answer: %w", context.Cause(ctx))
	}
}

func (l *lane) send(m *dns.Msg) error {
	wire, err := m.Pack()
	if err != nil {
		return fmt.Errorf("pack query: %w", err)
	}
	l.mu.Lock()
	conn, over := l.conn, l.err
	l.mu.Unlock()
	if over != nil {
		return over
	}
	if l.network == "udp" {
		if _, err := conn.Write(wire); err != nil {
			l.fail(fmt.Errorf("send query: %w", err))
			return fmt.Errorf("send query: %w", err)
		}
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	err = conn.(net.Conn).SetWriteDeadline(time.Now().Add(l.patient))
	if err == nil {
		err = writeFrame(conn, wire)
	}
	if err != nil {
		err = fmt.Errorf("send query: %w", err)
		l.fail(err) // half a message may have gone out
	}
	return err
}

// answers reports whether msg is a response to m. A nameserver that could not read the question may leave it out.
func answers(msg, m *dns.Msg) bool {
	if !msg.Response || msg.Id != m.Id || msg.Opcode != m.Opcode {
		return false
	}
	if len(msg.Question) == 0 {
		return msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError
	}
	a, b := msg.Question[0], m.Question[0]
	return len(msg.Question) == 1 && a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}
