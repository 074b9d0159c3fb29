package dnsproxy

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

var errBusy = errors.New("too many queries in flight")

// query is what is asked upstream; queries of equal keys have equal answers, so they are asked once.
type query struct {
	name           string // as the client wrote it, dot at the end
	qtype          uint16
	rd, ad, cd, do bool
}

// key returns q with its name as names are compared.
func (q query) key() query {
	q.name = strings.ToLower(q.name)
	return q
}

// answer is what is known about a query.
type answer struct {
	msg      *dns.Msg      // shared by those who got it: copied, never changed
	err      error         // of a failure that was kept; msg is nil then
	age      time.Duration // since a nameserver gave it
	from     Source
	attempts []Attempt
}

// call is a query in flight. msg, err and attempts are settled before done is closed and then is called.
type call struct {
	q, key query
	r      *resolver
	asked  time.Time // a TTL counts from then on at the latest

	done     chan struct{}
	msg      *dns.Msg
	err      error
	attempts []Attempt

	then []func() // who goes on with the answer; nil once it is settled; guarded by Proxy.mu
	over bool     // it is settled; guarded by Proxy.mu

	// What begin did. It belongs to whoever goes on, once begin has unlocked mu.
	mu    sync.Mutex
	order []*upstream
	first *sent
	goes  atomic.Bool // somebody goes on already
}

// sent is a question that is under way to the first nameserver of a call.
type sent struct {
	lane   *lane
	waiter *waiter
	at     time.Time
	failed chan error  // why it could not be sent; has room for one
	timer  *time.Timer // ends the wait
}

// wait returns the answer of the nameserver within its time.
func (s *sent) wait(ctx context.Context, patience time.Duration) (*dns.Msg, error) {
	defer s.lane.leave(s.waiter)
	select {
	case err := <-s.failed:
		return nil, err
	default:
	}
	ctx, cancel := context.WithDeadline(ctx, s.at.Add(patience))
	defer cancel()
	return s.lane.await(ctx, s.waiter)
}

// lookup is the question about one name: answered already, or under way.
type lookup struct {
	q      query
	answer answer // all of it, or where it will come from
	call   *call  // nil if answer or err says it all
	err    error
}

// look answers q from what is known, or asks for it. It does not wait.
func (p *Proxy) look(q query) *lookup {
	if msg := p.overrides.answer(q); msg != nil {
		return &lookup{q: q, answer: answer{msg: msg, from: FromOverride}}
	}
	key := q.key()
	if found, hot := p.cache.get(key, time.Now()); found.from != "" {
		if hot {
			p.refresh(q, key)
		}
		return &lookup{q: q, answer: found, err: found.err}
	}
	l := &lookup{q: q, answer: answer{from: FromPod}}
	if p.local.has(key.name) {
		l.answer.from = FromLaptop
	}
	l.call, l.err = p.join(q, key)
	return l
}

// get returns the answer. It reports false while there is none.
func (l *lookup) get() (_ answer, err error, ok bool) {
	a := l.answer
	if l.call == nil {
		return a, l.err, true
	}
	select {
	case <-l.call.done:
		a.msg, a.attempts = l.call.msg, l.call.attempts
		return a, l.call.err, true
	default:
		return a, nil, false
	}
}

// after makes goOn be called when c is settled, by whoever settles it, and reports false if it is.
func (p *Proxy) after(c *call, goOn func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.over {
		return false
	}
	c.then = append(c.then, goOn)
	return true
}

// join returns the call of q, begun if it was not.
func (p *Proxy) join(q, key query) (*call, error) {
	c, isNew, err := p.register(q, key)
	if err != nil {
		return nil, err
	}
	if isNew {
		p.begin(c)
	} else {
		p.stats.coalesced.Add(1)
	}
	return c, nil
}

// refresh asks again for what is in the cache and will be asked for when it has expired.
func (p *Proxy) refresh(q, key query) {
	if c, isNew, err := p.register(q, key); err == nil && isNew {
		p.stats.prefetched.Add(1)
		p.begin(c)
	}
}

// register returns the call of q, and whether the caller is the first, who has to begin it.
func (p *Proxy) register(q, key query) (_ *call, isNew bool, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, net.ErrClosed
	}
	if c, ok := p.calls[key]; ok {
		return c, false, nil
	}
	if len(p.calls) >= maxCalls {
		return nil, false, errBusy
	}
	c := &call{q: q, key: key, r: p.pod, asked: time.Now(), done: make(chan struct{})}
	if p.local.has(key.name) {
		c.r = p.laptop.Load()
	}
	p.calls[key] = c
	p.wg.Add(1)
	return c, true, nil
}

// begin sends the question to the first nameserver, where that needs no waiting, and leaves the rest to goOn.
func (p *Proxy) begin(c *call) {
	if c.r.datagrams == nil || c.r.stream {
		go p.run(c)
		return
	}
	c.mu.Lock()
	if c.order = c.r.order(); len(c.order) == 0 {
		c.mu.Unlock()
		go p.run(c)
		return
	}
	p.stats.upstream.Add(1)
	goOn := func() { p.goOn(c) }
	s := &sent{at: c.asked, failed: make(chan error, 1)}
	s.lane, s.waiter = c.order[0].lane(c.r, "udp", c.q.message(true), goOn)
	s.timer = time.AfterFunc(c.r.patience, goOn)
	c.first = s
	c.mu.Unlock()
	if err := s.lane.send(s.waiter.query); err != nil {
		s.failed <- err
		goOn()
	}
}

// goOn is called when the first nameserver has answered or will not. A good answer it settles at once, by whoever brings it;
// all else takes its time in run.
func (p *Proxy) goOn(c *call) {
	if c.goes.Swap(true) {
		return
	}
	c.mu.Lock()
	s := c.first
	c.mu.Unlock()
	s.timer.Stop()
	var msg *dns.Msg
	select {
	case msg = <-s.waiter.answer:
	default:
	}
	if msg == nil || msg.Truncated || isFailure(msg.Rcode) {
		if msg != nil {
			s.waiter.answer <- msg
		}
		go p.run(c)
		return
	}
	c.order[0].deadUntil.Store(0)
	c.attempts = []Attempt{{Server: c.order[0].addr, Network: "udp", Rcode: dns.RcodeToString[msg.Rcode], Took: time.Since(s.at)}}
	p.settle(c, msg, nil)
}

// run makes the call, or what is left of it; it ends by p.timeout or Close.
func (p *Proxy) run(c *call) {
	ctx, cancel := context.WithDeadline(p.ctx, c.asked.Add(p.timeout))
	defer cancel()
	msg, err := c.r.exchange(ctx, c.q, c)
	p.settle(c, msg, err)
}

// settle is the end of a call, which goes on without those who asked until it is answered, its time is up or p is closed.
// Those who wait without a goroutine of their own go on in this one.
func (p *Proxy) settle(c *call, msg *dns.Msg, err error) {
	defer p.wg.Done()
	if c.msg, c.err = msg, err; err == nil {
		scrub(msg, c.q)
	}
	if c.r == p.pod || c.r == p.laptop.Load() {
		p.keep(c.key, c, c.asked, c.r != p.pod)
	}
	p.mu.Lock()
	delete(p.calls, c.key) // before anybody hears of the answer: who asks then asks anew
	close(c.done)
	then := c.then
	c.then, c.over = nil, true
	p.mu.Unlock()
	for _, goOn := range then {
		goOn()
	}
}

// keep puts what became of a call into the cache. What is kept already, and not expired, is better than a failure.
func (p *Proxy) keep(key query, c *call, asked time.Time, local bool) {
	now := time.Now()
	if c.err == nil && !isFailure(c.msg.Rcode) {
		p.cache.put(key, c.msg, asked, local)
		return
	}
	if found, _ := p.cache.get(key, now); found.msg == nil && p.ctx.Err() == nil {
		p.cache.putFailure(key, c.msg, c.err, now, local)
	}
}
