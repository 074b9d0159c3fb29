package replay

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/relay"
)

const (
	// dialTimeout bounds a dial, which stays on the laptop.
	dialTimeout = 3 * time.Second
	// restAfterRefusal is how long nobody is dialled after a refusal: what comes
	// meanwhile is refused too.
	restAfterRefusal = 50 * time.Millisecond
	// writeTick is how often a write that waits looks whether it should go on.
	writeTick = 200 * time.Millisecond
)

// A player does to the local program what a client has done to the live one. It is
// one goroutine.
type player struct {
	r      *Replayer
	flow   flow.Flow
	in     *queue
	local  *local    // nil: not connected
	dialed bool      // there was a connection
	reused bool      // the request under way is not the first of its connection
	again  []byte    // all that was sent of now, if it may be sent once more; or nil
	now    *request  // under way; nil if none is, or its fate is known
	bytes  uint64    // of now
	stream fate      // taken while the flow's bytes are being delivered
	raw    bool      // there is a stream
	over   time.Time // when the flow's end was noticed
}

// run plays until the flow ends or the Replayer closes.
func (p *player) run() {
	for {
		i, ok := p.in.pop()
		if !ok {
			break
		}
		p.play(i)
	}
	for _, i := range p.in.close() { // the Replayer closes
		if i.kind == itemBegin {
			p.r.counts.requests.count(cut)
		}
	}
	p.settle(cut, nil)
	p.settleStream(cut)
	p.hangUp(true)
}

func (p *player) play(i item) {
	switch i.kind {
	case itemBegin:
		p.begin(i)
	case itemBody:
		if p.now != nil {
			p.again = nil
			p.send(i.data)
		}
	case itemEnd:
		if p.now != nil {
			p.await()
		}
	case itemRaw, itemSwitched:
		p.playStream(i)
	case itemCut:
		if i.stream && !p.raw {
			p.raw, p.stream = true, taken
		}
		if p.now != nil || p.raw && p.stream == taken {
			p.hangUp(true)
		}
		p.settle(i.fate, nil)
		p.settleStream(i.fate)
	case itemFin:
		p.finish()
	case itemReset:
		// A client that resets after its answer is common. What it had asked for
		// completely stands.
		p.settle(cut, nil)
		p.settleStream(delivered)
		p.hangUp(p.raw)
	}
}

// begin sends the head of a request.
func (p *player) begin(i item) {
	p.now, p.bytes = i.request, 0
	if p.local != nil && p.local.isOver() {
		p.hangUp(false)
	}
	p.reused = p.local != nil
	if !p.connect(true) {
		return
	}
	if p.again = nil; p.reused {
		p.again = i.data
	}
	p.local.ask(p.now.method)
	p.send(i.data)
}

// repeat sends the request under way once more, on a new connection, if the one it was
// sent on may have been closed before the program had read any of it: a program closes
// idle connections without a word. What could change something and may have been read
// is not sent twice, nor is a request whose body is under way. It reports whether the
// request is sent, or its fate known.
func (p *player) repeat() bool {
	head, old := p.again, p.local
	if head == nil || p.bytes > 0 && !http1.Safe(p.now.method) {
		return false
	}
	p.hangUp(true)
	if old.wasHeard() {
		return false
	}
	p.again, p.reused, p.bytes = nil, false, 0
	if !p.connect(true) {
		return true
	}
	p.r.counts.repeated.Add(1)
	p.local.ask(p.now.method)
	p.send(head)
	return true
}

// connect makes sure that there is a connection to the local program.
func (p *player) connect(http bool) bool {
	if p.local != nil {
		return true
	}
	c, err := p.r.dial(Call{Client: p.flow.Src, Server: p.flow.Dst, Again: p.dialed})
	if err != nil {
		p.settle(refused, nil)
		p.settleStream(refused)
		return false
	}
	p.dialed = true
	p.local = p.r.newLocal(c, http)
	return true
}

// send writes bytes of the request or the stream under way. If that fails, their
// fate is known.
func (p *player) send(b []byte) {
	for len(b) > 0 {
		_ = p.local.conn.SetWriteDeadline(time.Now().Add(writeTick)) // if it is closed the write says so
		n, err := p.local.conn.Write(b)
		b = b[n:]
		p.bytes += uint64(n)
		p.r.counts.bytes.Add(uint64(n))
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) && !p.hopeless() {
			continue
		}
		why := broken
		switch timeout := errors.Is(err, os.ErrDeadlineExceeded); {
		case p.in.hasCut():
			why = slow
		case !timeout && p.now != nil && p.repeat():
			return
		}
		p.settle(why, nil)
		p.settleStream(why)
		p.hangUp(true)
		return
	}
}

// hopeless reports whether a write that waits waits for nothing: what is behind it
// is missing, or the Replayer closes.
func (p *player) hopeless() bool { return p.in.hasCut() || p.r.ctx.Err() != nil || p.lingered() }

// lingered reports whether the flow has been over for so long that nothing of it is
// waited for any more.
func (p *player) lingered() bool {
	select {
	case <-p.in.end:
		if p.over.IsZero() {
			p.over = time.Now()
		}
		return time.Since(p.over) > p.r.cfg.Linger
	default:
		return false
	}
}

// await waits for the answer to the request, which is complete: the next one is sent
// behind it, since programs that close a connection after an answer, or read no
// further, would lose it.
func (p *player) await() {
	select {
	case a := <-p.local.answers:
		p.settle(delivered, a)
		return
	case <-p.local.gone:
	case <-p.r.ctx.Done():
	case <-p.in.end:
		limit := time.NewTimer(p.r.cfg.Linger)
		defer limit.Stop()
		select {
		case a := <-p.local.answers:
			p.settle(delivered, a)
			return
		case <-p.local.gone:
		case <-p.r.ctx.Done():
		case <-limit.C:
		}
	}
	select {
	case a := <-p.local.answers: // and then it was gone
		p.settle(delivered, a)
	default:
		p.unanswered()
	}
	p.hangUp(false)
}

// unanswered decides about a complete request that got no answer.
func (p *player) unanswered() {
	switch {
	case !p.reused || !p.local.isGone() || p.local.wasHeard():
		p.r.counts.unanswered.Add(1)
		p.settle(delivered, nil)
	case !p.repeat():
		p.settle(broken, nil) // perhaps the program has read it, perhaps not
	case p.now != nil:
		p.await()
	}
}

// playStream passes on bytes of a stream.
func (p *player) playStream(i item) {
	if p.raw && p.stream != taken {
		return
	}
	if !p.raw {
		p.raw, p.stream = true, taken
		if i.kind == itemRaw && p.local != nil && p.local.isOver() {
			p.hangUp(false)
		}
		if i.kind == itemSwitched && (p.local == nil || !p.local.switched()) {
			p.settleStream(refused)
			return
		}
	}
	if p.local == nil && !p.connect(false) {
		return
	}
	p.local.discard()
	p.send(i.data)
}

// finish ends the client's direction, and waits for the end of the other.
func (p *player) finish() {
	p.settle(cut, nil)
	if p.local == nil {
		return
	}
	if !p.raw {
		p.hangUp(false)
		return
	}
	if err := p.local.conn.CloseWrite(); err == nil {
		p.settleStream(delivered)
		limit := time.NewTimer(p.r.cfg.Linger)
		defer limit.Stop()
		select {
		case <-p.local.gone:
		case <-limit.C:
		case <-p.r.ctx.Done():
		}
	}
	p.settleStream(broken)
	p.hangUp(false)
}

// settle notes what has become of the request under way, if one is, and the answer
// to it, nil if there is none.
func (p *player) settle(f fate, a *Answer) {
	if p.now == nil {
		return
	}
	p.r.settle(p.now, p.flow, p.bytes, f, a)
	p.now = nil
}

// settleStream notes what has become of the stream, if there is one.
func (p *player) settleStream(f fate) {
	if p.raw && p.stream == taken {
		p.stream = f
		p.r.counts.streams.count(f)
	}
}

// hangUp closes the connection to the local program, if there is one.
func (p *player) hangUp(reset bool) {
	if p.local != nil {
		p.local.close(reset)
		p.local = nil
	}
}

// dial connects to the local program.
func (r *Replayer) dial(call Call) (relay.Conn, error) {
	call.Server = netip.AddrPortFrom(call.Server.Addr(), r.cfg.Ports[call.Server.Port()])
	if until := r.rest.Load(); until > time.Now().UnixNano() {
		return nil, errResting
	}
	ctx, cancel := context.WithTimeout(r.ctx, dialTimeout)
	defer cancel()
	c, err := r.cfg.Dial(ctx, call)
	if err != nil {
		if r.ctx.Err() == nil {
			r.rest.Store(time.Now().Add(restAfterRefusal).UnixNano())
			text := err.Error()
			r.problem.Store(&text)
		}
		return nil, err
	}
	r.problem.Store(nil)
	return c, nil
}

// errResting is why nobody was dialled.
var errResting = errors.New("refused a moment ago")
