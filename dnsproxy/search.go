package dnsproxy

import (
	"context"
	"strings"

	"github.com/miekg/dns"
)

// searchRules are the search list and ndots of a resolv.conf.
type searchRules struct {
	suffixes []string // dot at the end, lower case; "." is the root
	ndots    int
	// full are the suffixes by which a name is known to be complete: the search list and the cluster's domain.
	full []string
}

// newSearchRules reads the rules out of rc, which came from the agent: what is not a domain name is left out.
func newSearchRules(rc ResolvConf) searchRules {
	rules := searchRules{ndots: min(max(rc.Ndots, 0), maxNdots)}
	for _, s := range rc.Search[:min(len(rc.Search), maxSearch)] {
		if s == "" {
			continue
		}
		s = strings.ToLower(dns.Fqdn(s))
		if _, ok := dns.IsDomainName(s); !ok {
			continue
		}
		rules.suffixes = append(rules.suffixes, s)
		if s == "." {
			continue
		}
		rules.full = append(rules.full, s)
		// The list of a pod is NAMESPACE.svc.DOMAIN, svc.DOMAIN, DOMAIN; dnsConfig may have dropped the last ones.
		if _, domain, ok := strings.Cut(s, ".svc."); ok && domain != "" {
			rules.full = append(rules.full, domain)
		}
	}
	return rules
}

// plan returns the names to ask in order. settled reports whether the first of them is the name itself because it has
// ndots dots, so that its result is that of the whole search if nothing is found.
func (s *searchRules) plan(q query) (names []string, settled bool) {
	if !searched(q) {
		return []string{q.name}, true
	}
	settled = dns.CountLabel(q.name)-1 >= s.ndots
	// A query does not tell whether the name was written with a dot at its end. Names that end as a suffix does
	// are nearly always complete, and the pod's resolver would find nothing under name.suffix.suffix.
	asIs := settled || s.complete(q.name)
	if asIs {
		names = append(names, q.name)
	}
	for _, suffix := range s.suffixes {
		if suffix == "." {
			if !asIs {
				names, asIs = append(names, q.name), true
			}
			continue
		}
		name := q.name + suffix
		if _, ok := dns.IsDomainName(name); ok {
			names = append(names, name)
		}
	}
	if !asIs {
		names = append(names, q.name)
	}
	return names, settled
}

// complete reports whether name is in a domain of the search list or the cluster's.
func (s *searchRules) complete(name string) bool {
	for _, suffix := range s.full {
		if dns.IsSubDomain(suffix, name) {
			return true
		}
	}
	return false
}

// searched reports whether q is a question that a resolver library applies the search list to. Reverse lookups and
// those of validators and zone walkers name zones, and always in full.
func searched(q query) bool {
	switch q.qtype {
	case dns.TypePTR, dns.TypeDS, dns.TypeDNSKEY, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM:
		return false
	}
	return q.name != "." && !dns.IsSubDomain("in-addr.arpa.", q.name) && !dns.IsSubDomain("ip6.arpa.", q.name)
}

// result is an answer and the name that it is about.
type result struct {
	name string
	msg  *dns.Msg
}

// found reports whether the answer has records, or had more than a datagram takes.
func (r result) found() bool {
	return r.msg.Rcode == dns.RcodeSuccess && (len(r.msg.Answer) > 0 || r.msg.Truncated)
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
func (p *Proxy) resolve(ctx context.Context, q query) (result, error) {
	names, settled := p.rules.plan(q)
	var asIs result
	var nodata, failed *result
	stopped := false
	for i, name := range names {
		if stopped && name != q.name {
			continue
		}
		res, err := p.lookup(ctx, q, name)
		if err != nil {
			return result{}, err
		}
		if name == q.name {
			asIs = res
		}
		switch rcode := res.msg.Rcode; {
		case res.found():
			return res, nil
		case rcode == dns.RcodeSuccess:
			if i < len(names)-1 && p.hasSibling(ctx, q, name) {
				return res, nil
			}
			if nodata == nil {
				nodata = &res
			}
		case rcode != dns.RcodeNameError:
			if failed == nil {
				failed = &res
			}
			stopped = stopped || name != q.name && rcode != dns.RcodeServerFailure
		}
	}
	switch {
	case settled:
		return asIs, nil
	case nodata != nil:
		return *nodata, nil
	case failed != nil:
		return *failed, nil
	}
	return asIs, nil
}

// lookup asks q about name.
func (p *Proxy) lookup(ctx context.Context, q query, name string) (result, error) {
	q.name = name
	msg, err := p.ask(ctx, q)
	return result{name: name, msg: msg}, err
}

// hasSibling reports whether name, which has no record of q's address type, has one of the other.
func (p *Proxy) hasSibling(ctx context.Context, q query, name string) bool {
	switch q.qtype {
	case dns.TypeA:
		q.qtype = dns.TypeAAAA
	case dns.TypeAAAA:
		q.qtype = dns.TypeA
	default:
		return false
	}
	// The program has most likely just asked the same question, so that this joins it. An error is its business.
	res, err := p.lookup(ctx, q, name)
	return err == nil && res.found()
}
