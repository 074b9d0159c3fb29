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
// It is stricter than glibc when no nameserver answered at all: then the search fails, where glibc tries the name itself
// and may report its NXDOMAIN.
//
// Of a name that fails, and ends as the laptop's search list does, the rest is asked for: see withoutLaptop.
func (p *Proxy) resolve(ctx context.Context, q query, t *trace) (result, error) {
	s := search{p: p, q: q}
	for {
		res, missing, err := s.run(t)
		if missing == nil {
			return res, err
		}
		select {
		case <-missing.call.done:
		case <-ctx.Done():
			err := context.Cause(ctx)
			t.note(missing.q, missing.answer, err)
			return result{}, err
		}
	}
}

// search is a resolve under way. Nothing in it waits: who wants its result runs it again each time that an answer has come,
// and it goes the same way once more, by the answers to what it has asked already.
type search struct {
	p     *Proxy
	q     query
	asked []*lookup
}

// look is Proxy.look, once for each query.
func (s *search) look(q query) *lookup {
	for _, l := range s.asked {
		if l.q == q {
			return l
		}
	}
	l := s.p.look(q)
	s.asked = append(s.asked, l)
	return l
}

// run returns the result of the search, or the lookup that has to be answered before it is run again.
func (s *search) run(t *trace) (_ result, missing *lookup, _ error) {
	t.restart()
	steps, settled := s.p.names(s.q)
	r := pass{search: s, t: t}
	for i, names := range steps {
		r.last = i == len(steps)-1
		found, err := r.step(names)
		if err != nil {
			return r.withoutLaptop(result{}, err)
		}
		if r.missing != nil {
			return result{}, r.missing, nil
		}
		if found != nil {
			return *found, nil, nil
		}
	}
	res := r.result(settled)
	if rcode := res.msg.Rcode; rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError {
		return r.withoutLaptop(res, nil)
	}
	return res, nil, nil
}

// pass is one run of a search.
type pass struct {
	*search
	t *trace

	missing        *lookup // has no answer yet: the pass ends here
	last           bool    // the step is the last one
	stopped        bool    // by an error: only the name itself is tried yet
	asIs           result  // of the name itself
	nodata, failed *result // the first ones
}

// result is that of a search that found nothing.
func (r *pass) result(settled bool) result {
	switch {
	case settled:
		return r.asIs
	case r.nodata != nil:
		return *r.nodata
	case r.failed != nil:
		return *r.failed
	}
	return r.asIs
}

// withoutLaptop tries a name that failed, by an answer or by err, without the end that the laptop's search list may have given
// it. If that is there the name itself is said not to be: a library that has put the end there goes on to the rest, and a
// program that means a host by the whole name gets no other one. Else it stays as it is.
func (r *pass) withoutLaptop(failed result, err error) (_ result, missing *lookup, _ error) {
	if r.p.local.has(r.q.key().name) {
		return failed, nil, err
	}
	rest := pass{search: r.search, t: r.t}
	found, restErr := rest.step(r.p.rules.without(r.p.laptop.Load().search, r.q))
	switch {
	case rest.missing != nil:
		return result{}, rest.missing, nil
	case restErr == nil && found != nil:
		none := new(dns.Msg).SetQuestion(r.q.name, r.q.qtype)
		none.Rcode, none.RecursionAvailable = dns.RcodeNameError, true
		return result{name: r.q.name, answer: answer{msg: none, from: found.from}}, nil, nil
	}
	return failed, nil, err
}

// step asks for names at the same time and returns the first of them, in their order, that has an answer, or nil.
func (r *pass) step(names []string) (*result, error) {
	var lookups []*lookup
	for _, name := range names {
		q := r.q
		q.name = name
		l := r.look(q)
		lookups = append(lookups, l)
		if l.call == nil && l.err == nil && found(l.answer.msg) {
			break // whatever comes after it cannot win
		}
	}
	for i, l := range lookups {
		if r.stopped && l.q.name != r.q.name {
			continue
		}
		a, err, ok := r.get(l)
		if err != nil || !ok {
			return nil, err
		}
		res := result{name: l.q.name, answer: a}
		if r.judge(res, r.last && i == len(names)-1) {
			return &res, nil
		}
		if r.missing != nil {
			return nil, nil
		}
	}
	return nil, nil
}

// get returns the answer to l and notes it, or that it is missing.
func (r *pass) get(l *lookup) (_ answer, err error, ok bool) {
	a, err, ok := l.get()
	if !ok {
		r.missing = l
		return a, nil, false
	}
	r.t.note(l.q, a, err)
	return a, err, true
}

// judge reports whether res ends the search, and remembers it if not. last is true of the last name. It may find something
// missing.
func (r *pass) judge(res result, last bool) bool {
	if res.name == r.q.name {
		r.asIs = res
	}
	switch rcode := res.msg.Rcode; {
	case res.found():
		return true
	case rcode == dns.RcodeSuccess:
		if !last && r.hasSibling(res.name) {
			return true
		}
		if r.nodata == nil {
			r.nodata = &res
		}
	case rcode != dns.RcodeNameError:
		if r.failed == nil {
			r.failed = &res
		}
		r.stopped = r.stopped || res.name != r.q.name && rcode != dns.RcodeServerFailure
	}
	return false
}

// hasSibling reports whether name, which has no record of the query's address type, has one of the other.
func (r *pass) hasSibling(name string) bool {
	q := r.q
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
	a, err, ok := r.get(r.look(q))
	return ok && err == nil && found(a.msg)
}
