package dnsproxy

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

var errTimeout = errors.New("no answer in time")

// Serve answers query, a DNS message that came over UDP, by reply, once; it reports false if query is dropped instead. It does
// not wait: reply is called before it returns if the answer is known, else by whoever brings what was missing, or when the time
// is up. reply must not block, and query is the caller's again when Serve returns.
func (p *Proxy) Serve(query []byte, reply func([]byte)) bool {
	p.stats.queries.Add(1)
	if !p.enter() {
		p.stats.dropped.Add(1)
		return false
	}
	req, early := parseRequest(query, true)
	switch {
	case req == nil:
		p.stats.dropped.Add(1)
		p.leave()
		return false
	case early != nil:
		p.stats.countReply(early)
		req.send(early, reply)
		p.leave()
	default:
		s := &serving{p: p, req: req, reply: reply, search: search{p: p, q: req.query()}, until: time.Now().Add(p.timeout)}
		s.goOn()
	}
	return true
}

// serving is a query of Serve. It belongs to one goroutine at a time, and to none while something is missing.
type serving struct {
	p      *Proxy
	req    *request
	reply  func([]byte)
	search search
	until  time.Time // the end of its time
	waited bool
}

// goOn goes on with what has come, until something is missing or nothing is.
func (s *serving) goOn() {
	for {
		res, missing, err := s.search.run(nil)
		if missing == nil {
			s.end(res, err)
			return
		}
		if s.wait(missing.call) {
			return
		}
	}
}

// wait makes goOn be called when c is settled, and reports false if the caller has to go on at once. The time is up when that of the first call is, which
// began no later; later calls may take longer than what is left.
func (s *serving) wait(c *call) bool {
	if !s.waited {
		s.waited = true
		return s.p.after(c, s.goOn)
	}
	var gone atomic.Bool // on, or by the end of its time
	late := time.AfterFunc(time.Until(s.until), func() {
		if !gone.Swap(true) {
			s.end(result{}, errTimeout)
		}
	})
	if s.p.after(c, func() {
		late.Stop()
		if !gone.Swap(true) {
			s.goOn()
		}
	}) {
		return true
	}
	late.Stop()
	return gone.Swap(true)
}

// end replies.
func (s *serving) end(res result, err error) {
	reply := s.p.conclude(s.p.ctx, s.req, res, err)
	s.p.stats.countReply(reply)
	s.req.send(reply, s.reply)
	s.p.leave()
}

// send gives out to reply in wire format.
func (r *request) send(out *dns.Msg, reply func([]byte)) {
	if buf := r.pack(out); buf != nil {
		reply(buf)
	}
}
