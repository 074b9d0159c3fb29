package dnsproxy

import (
	"strings"

	"github.com/miekg/dns"
)

// maxChain bounds the aliases that an answer may go through.
const maxChain = 16

// scrub takes out of msg, the answer to q, what has nothing to do with q: a nameserver, or who spoke in its name, must
// not tell programs about names that they did not ask for.
func scrub(msg *dns.Msg, q query) {
	if len(msg.Question) == 0 { // it could not read the question
		msg.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}}
		msg.Answer, msg.Ns, msg.Extra = nil, nil, nil
		return
	}
	names := chain(q.name, msg.Answer)
	msg.Answer = keep(msg.Answer, func(rr dns.RR) bool {
		if names[lower(rr)] {
			return true
		}
		for name := range names { // the DNAME above an alias, and its signature
			if isAlias(rr, dns.TypeDNAME) && dns.IsSubDomain(lower(rr), name) {
				return true
			}
		}
		return false
	})
	msg.Ns = keep(msg.Ns, func(rr dns.RR) bool {
		switch rr.Header().Rrtype {
		case dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG: // names next to those in question
			return true
		}
		for name := range names {
			if dns.IsSubDomain(lower(rr), name) {
				return true
			}
		}
		return false
	})
	targets := make(map[string]bool)
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns} {
		for _, rr := range section {
			if t := target(rr); t != "" {
				targets[strings.ToLower(t)] = true
			}
		}
	}
	msg.Extra = keep(msg.Extra, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeOPT || targets[lower(rr)]
	})
}

// chain returns name and the names that it is an alias for by rrs, in lower case.
func chain(name string, rrs []dns.RR) map[string]bool {
	names := map[string]bool{strings.ToLower(name): true}
	for range maxChain {
		before := len(names)
		for _, rr := range rrs {
			if alias, ok := rr.(*dns.CNAME); ok && names[lower(rr)] {
				names[strings.ToLower(alias.Target)] = true
			}
		}
		if len(names) == before || before > maxChain {
			break
		}
	}
	return names
}

// target returns the name that rr points to, whose addresses may come along.
func target(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.SRV:
		return rr.Target
	case *dns.MX:
		return rr.Mx
	case *dns.NS:
		return rr.Ns
	case *dns.NAPTR:
		return rr.Replacement
	case *dns.SVCB:
		return serviceTarget(rr)
	case *dns.HTTPS:
		return serviceTarget(&rr.SVCB)
	}
	return ""
}

// serviceTarget returns the target of a service binding; "." is its owner (RFC 9460 §2.5).
func serviceTarget(rr *dns.SVCB) string {
	if rr.Target == "." {
		return rr.Hdr.Name
	}
	return rr.Target
}

// isAlias reports whether rr is of the type t, or a signature of that.
func isAlias(rr dns.RR, t uint16) bool {
	sig, ok := rr.(*dns.RRSIG)
	return rr.Header().Rrtype == t || ok && sig.TypeCovered == t
}

func lower(rr dns.RR) string { return strings.ToLower(rr.Header().Name) }

// keep returns the records of class IN that wanted is true of, and OPT records' pseudo-class aside.
func keep(rrs []dns.RR, wanted func(dns.RR) bool) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		if h := rr.Header(); (h.Class == dns.ClassINET || h.Rrtype == dns.TypeOPT) && wanted(rr) {
			out = append(out, rr)
		}
	}
	return out
}
