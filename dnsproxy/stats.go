package dnsproxy

import (
	"sync/atomic"

	"github.com/miekg/dns"
)

// Stats are exact counts since New.
type Stats struct {
	// Queries counts what clients sent. Each of them was answered with success, another rcode, or dropped.
	Queries  uint64 `json:"queries"`
	Answered uint64 `json:"answered"`
	NXDomain uint64 `json:"nxdomain"`
	ServFail uint64 `json:"servfail"`
	Refused  uint64 `json:"refused"`
	Dropped  uint64 `json:"dropped"`
	// Failed counts the ServFail that are ours: no nameserver answered in time. The others are a nameserver's.
	Failed uint64 `json:"failed"`
	// Cached, Local and Overridden count the queries whose answer came from the cache, the laptop's resolver now, and the
	// person's own addresses.
	Cached     uint64 `json:"cached"`
	Local      uint64 `json:"local"`
	Overridden uint64 `json:"overridden"`
	// Upstream counts queries sent to nameservers, UpstreamErrors those without an answer, Coalesced the questions
	// that shared a query in flight, Prefetched the queries that no program waited for.
	Upstream       uint64 `json:"upstream"`
	UpstreamErrors uint64 `json:"upstreamErrors"`
	Coalesced      uint64 `json:"coalesced"`
	Prefetched     uint64 `json:"prefetched"`
	// Entries is how many answers and failures the cache holds now, expired ones that nobody has asked for again included.
	Entries int `json:"entries"`
}

type counters struct {
	queries, answered, nxdomain, servfail, refused, dropped atomic.Uint64
	cached, local, overridden                               atomic.Uint64
	failed, upstream, upstreamErrors, coalesced, prefetched atomic.Uint64
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

// countSource counts an answer by where it came from.
func (c *counters) countSource(from Source) {
	switch from {
	case FromCache:
		c.cached.Add(1)
	case FromLaptop:
		c.local.Add(1)
	case FromOverride:
		c.overridden.Add(1)
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
		Cached:         c.cached.Load(),
		Local:          c.local.Load(),
		Overridden:     c.overridden.Load(),
		Upstream:       c.upstream.Load(),
		UpstreamErrors: c.upstreamErrors.Load(),
		Coalesced:      c.coalesced.Load(),
		Prefetched:     c.prefetched.Load(),
		Entries:        p.cache.len(),
	}
}
