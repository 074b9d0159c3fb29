package dnsproxy

import (
	"sync/atomic"

	"github.com/miekg/dns"
)

// Stats are exact counts since New.
type Stats struct {
	// Queries counts what clients sent. Each of them was answered with success, another rcode, or dropped.
	Queries, Answered, NXDomain, ServFail, Refused, Dropped uint64
	// Failed counts the ServFail that are ours: no nameserver answered in time. The others are a nameserver's.
	Failed uint64
	// Upstream counts queries sent to nameservers, UpstreamErrors those without an answer, Coalesced the questions
	// that shared a query in flight.
	Upstream, UpstreamErrors, Coalesced uint64
}

type counters struct {
	queries, answered, nxdomain, servfail, refused, dropped atomic.Uint64
	failed, upstream, upstreamErrors, coalesced             atomic.Uint64
}

// countReply counts a reply by its rcode.
func (c *counters) countReply(reply *dns.Msg) {
	switch reply.Rcode {
	case dns.RcodeSuccess:
		c.answered.Add(1)
	case dns.RcodeNameError:
		c.nxdomain.Add(1)
	case dns.RcodeServerFailure:
		c.servfail.Add(1)
	default:
		c.refused.Add(1)
	}
}

// Stats returns a snapshot of the counters.
func (p *Proxy) Stats() Stats {
	c := &p.stats
	return Stats{
		Queries:        c.queries.Load(),
		Answered:       c.answered.Load(),
		NXDomain:       c.nxdomain.Load(),
		ServFail:       c.servfail.Load(),
		Refused:        c.refused.Load(),
		Dropped:        c.dropped.Load(),
		Failed:         c.failed.Load(),
		Upstream:       c.upstream.Load(),
		UpstreamErrors: c.upstreamErrors.Load(),
		Coalesced:      c.coalesced.Load(),
	}
}
