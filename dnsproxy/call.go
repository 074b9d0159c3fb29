package dnsproxy

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
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

// call is a query in flight. msg, err and attempts are settled before done is closed.
type call struct {
	done chan struct{}
	msg  *dns.Msg
	err  error

	mu       sync.Mutex
	attempts []Attempt
}

func (c *call) note(a Attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts = append(c.attempts, a)
}

// lookup is the question about one name: answered already, or under way.
type lookup struct {
	answer answer // all of it, or where it will come from
	call   *call  // nil if answer or err says it all
	err    error
}

// look answers q from what is known, or asks for it. It does not wait.
func (p *Proxy) look(q query) *lookup {
	if msg := p.overrides.answer(q); msg != nil {
		return &lookup{answer: answer{msg: msg, from: FromOverride}}
	}
	key := q.key()
	if found, hot := p.cache.get(key, time.Now()); found.from != "" {
		if hot {
			p.refresh(q, key)
		}
		return &lookup{answer: found, err: found.err}
	}
	l := &lookup{answer: answer{from: FromPod}}
	if p.local.has(key.name) {
		l.answer.from = FromLaptop
	}
	l.call, l.err = p.join(q, key)
	return l
}

// wait returns the answer. The query itself goes on when its first caller leaves, until it is answered, its time is up or
// p is closed.
func (l *lookup) wait(ctx context.Context) (answer, error) {
	a := l.answer
	if l.call == nil {
		return a, l.err
	}
	select {
	case <-l.call.done:
		a.msg, a.attempts = l.call.msg, l.call.attempts
		return a, l.call.err
	case <-ctx.Done():
		return a, context.Cause(ctx)
	}
}

// join returns the call of q, started if it was not.
func (p *Proxy) join(q, key query) (*call, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if c, ok := p.calls[key]; ok {
		p.stats.coalesced.Add(1)
		return c, nil
	}
	return p.startLocked(q, key)
}

// refresh asks again for what is in the cache and will be asked for when it has expired.
func (p *Proxy) refresh(q, key query) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, asked := p.calls[key]; asked || p.closed {
		return
	}
	if _, err := p.startLocked(q, key); err == nil {
		p.stats.prefetched.Add(1)
	}
}

func (p *Proxy) startLocked(q, key query) (*call, error) {
	if len(p.calls) >= maxCalls {
		return nil, errBusy
	}
	c := &call{done: make(chan struct{})}
	p.calls[key] = c
	p.wg.Go(func() { p.run(q, key, c) })
	return c, nil
}

// run makes the call; it ends by p.timeout or Close.
func (p *Proxy) run(q, key query, c *call) {
	ctx, cancel := context.WithTimeout(p.ctx, p.timeout)
	defer cancel()
	r := p.pod
	if p.local.has(key.name) {
		r = p.laptop.Load()
	}
	asked := time.Now() // a TTL counts from then on at the latest
	if c.msg, c.err = r.exchange(ctx, q, c); c.err == nil {
		scrub(c.msg, q)
	}
	if r == p.pod || r == p.laptop.Load() {
		p.keep(key, c, asked, r != p.pod)
	}
	p.mu.Lock()
	delete(p.calls, key)
	p.mu.Unlock()
	close(c.done)
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
