package dnsproxy

import (
	"slices"
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
	rules.suffixes = rc.suffixes()
	for _, s := range rules.suffixes {
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

// suffixes returns the search list, what is no domain name left out, in lower case and with dots at the end; "." is the root.
func (rc *ResolvConf) suffixes() []string {
	var out []string
	for _, s := range rc.Search[:min(len(rc.Search), maxSearch)] {
		if s == "" {
			continue
		}
		if s = strings.ToLower(dns.Fqdn(s)); isName(s) {
			out = append(out, s)
		}
	}
	return out
}

// plan returns the names to ask, in order. Those of one step are asked at the same time, the next step only if none of
// them has an answer. The search list is one step, since a nameserver of the cluster knows its answers; the name itself,
// which may be a question to the whole internet, is another. settled reports whether the name itself comes first because
// it has ndots dots, so that its result is that of the whole search if nothing is found.
func (s *searchRules) plan(q query) (steps [][]string, settled bool) {
	itself := []string{q.name}
	// A query does not tell whether the name was written with a dot at its end. Names that end as a suffix does
	// are complete: the pod's resolver would find nothing under name.suffix.suffix.
	if !searched(q) || s.complete(q.name) {
		return [][]string{itself}, true
	}
	settled = dns.CountLabel(q.name)-1 >= s.ndots
	asIs := settled
	if asIs {
		steps = append(steps, itself)
	}
	var step []string
	for _, suffix := range s.suffixes {
		if suffix != "." {
			if name := q.name + suffix; isName(name) {
				step = append(step, name)
			}
			continue
		}
		if asIs {
			continue
		}
		if asIs = true; len(step) > 0 {
			steps = append(steps, step)
		}
		steps, step = append(steps, itself), nil
	}
	if len(step) > 0 {
		steps = append(steps, step)
	}
	if !asIs {
		steps = append(steps, itself)
	}
	return steps, settled
}

// without returns the names to ask for what is left of name without a domain of the laptop's search list, as a program may
// have written it; nil if name is in none of them, or complete for the pod. Its C library has put the domain there, and
// asks for the rest by itself only if a nameserver says that there is no such name: musl, dig and host give up when it fails.
func (s *searchRules) without(laptop []string, q query) []string {
	if !searched(q) || s.complete(q.name) {
		return nil
	}
	for _, domain := range laptop {
		if len(q.name) <= len(domain)+1 || !within(domain, q.name) {
			continue
		}
		rest := q
		rest.name = q.name[:len(q.name)-len(domain)]
		steps, _ := s.plan(rest)
		var names []string
		for _, name := range slices.Concat(steps...) {
			if name != rest.name { // as it is it would be a question about the whole world
				names = append(names, name)
			}
		}
		return names
	}
	return nil
}

func isName(s string) bool {
	_, ok := dns.IsDomainName(s)
	return ok
}

// complete reports whether name is in a domain of the search list or the cluster's.
func (s *searchRules) complete(name string) bool {
	for _, suffix := range s.full {
		if within(suffix, name) {
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
	return q.name != "." && !within("in-addr.arpa.", q.name) && !within("ip6.arpa.", q.name)
}
