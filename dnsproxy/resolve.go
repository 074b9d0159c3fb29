package dnsproxy

import (
	"context"

	"github.com/miekg/dns"
)

// result is an answer and the name that it is about.
type result struct {
	name string
	answer
}

// found reports whether the answer has records, or had more than a datagram takes.
func (r result) found() bool { return found(r.msg) }

func found(msg *dns.Msg) bool {
	return msg.Rcode == dns.RcodeSuccess && (len(msg.Answer) > 0 || msg.Truncated)
}

// names returns the steps in which q is resolved, as searchRules.plan does. Names that the person has given to the laptop,
// or an address, are what they are.
func (p *Proxy) names(q query) (steps [][]string, settled bool) {
	name := q.key().name
	if _, ok := p.overrides[name]; ok || p.local.has(name) {
		return [][]string{{q.name}}, true
	}
	return p.rules.plan(q)
}

// resolve searches as glibc does (resolv/res_query.c, __res_context_search; musl and Go agree on what is found):
//
//   - The first name with data ends the search. So does, for A and AAAA, a name that has data of the other type:
//     getaddrinfo asks both and takes what one name has. Without this an A record would be found in the cluster and
//     the AAAA record of an unrelated name on the internet.
//   - NODATA elsewhere is remembered and the search goes on: a wildcard of another type must not hide a later name.
//   - SERVFAIL is remembered and the search goes on; other errors end it, but the name itself is still tried.
//   - If nothing was found, the result is that of the name itself if it was tried first for its dots, else NODATA
//     if a name had that, else the first error, else the NXDOMAIN of the name itself.
//
// It is stricter than glibc when no nameserver answered at all: then nothing more is asked and the search fails, where
// glibc tries the name itself and may report its NXDOMAIN.
func (p *Proxy) resolve(ctx context.Context, q query, t *trace) (result, error) {
	steps, settled := p.names(q)
	s := search{p: p, q: q, t: t}
	for i, names := range steps {
		s.last = i == len(steps)-1
		found, err := s.step(ctx, names)
		if err != nil {
			return result{}, err
		}
		if found != nil {
			return *found, nil
		}
	}
	switch {
	case settled:
		return s.asIs, nil
	case s.nodata != nil:
		return *s.nodata, nil
	case s.failed != nil:
		return *s.failed, nil
	}
	return s.asIs, nil
}

// search is the state of a resolve.
type search struct {
	p *Proxy
	q query
	t *trace

	last           bool    // the step is the last one
	stopped        bool    // by an error: only the name itself is tried yet
	asIs           result  // of the name itself
	nodata, failed *result // the first ones
}

// step asks for names at the same time and returns the first of them, in their order, that has an answer, or nil.
func (s *search) step(ctx context.Context, names []string) (*result, error) {
	var lookups []*lookup
	for _, name := range names {
		q := s.q
		q.name = name
		l := s.p.look(q)
		lookups = append(lookups, l)
		if l.call == nil && l.err == nil && found(l.answer.msg) {
			break // whatever comes after it cannot win
		}
	}
	for i, l := range lookups {
		name := names[i]
		if s.stopped && name != s.q.name {
			continue
		}
		a, err := l.wait(ctx)
		s.t.note(name, s.q.qtype, a, err)
		if err != nil {
			return nil, err
		}
		res := result{name: name, answer: a}
		if s.judge(ctx, res, s.last && i == len(names)-1) {
			return &res, nil
		}
	}
	return nil, nil
}

// judge reports whether res ends the search, and remembers it if not. last is true of the last name.
func (s *search) judge(ctx context.Context, res result, last bool) bool {
	if res.name == s.q.name {
		s.asIs = res
	}
	switch rcode := res.msg.Rcode; {
	case res.found():
		return true
	case rcode == dns.RcodeSuccess:
		if !last && s.hasSibling(ctx, res.name) {
			return true
		}
		if s.nodata == nil {
			s.nodata = &res
		}
	case rcode != dns.RcodeNameError:
		if s.failed == nil {
			s.failed = &res
		}
		s.stopped = s.stopped || res.name != s.q.name && rcode != dns.RcodeServerFailure
	}
	return false
}

// hasSibling reports whether name, which has no record of the query's address type, has one of the other.
func (s *search) hasSibling(ctx context.Context, name string) bool {
	q := s.q
	q.name = name
	switch q.qtype {
	case dns.TypeA:
		q.qtype = dns.TypeAAAA
	case dns.TypeAAAA:
		q.qtype = dns.TypeA
	default:
		return false
	}
	// The program has most likely just asked the same question, so that this joins it. An error is its business.
	a, err := s.p.look(q).wait(ctx)
	s.t.note(name, q.qtype, a, err)
	return err == nil && found(a.msg)
}
