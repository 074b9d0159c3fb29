package dnsproxy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// overrideTTL is how long, in seconds, a program may keep an answer that is the person's own.
const overrideTTL = 5

// domains is a set of domain names and all that is below them.
type domains []string // lower case, dot at the end

// ParseDomain returns s, a name with or without a dot at its end, as a domain that names can be in.
func ParseDomain(s string) (string, error) {
	name := strings.ToLower(strings.TrimPrefix(s, "*."))
	if _, ok := dns.IsDomainName(name); !ok || name == "" || strings.ContainsAny(name, " \t/\\:*") {
		return "", fmt.Errorf("%q is not a domain name", s)
	}
	return dns.Fqdn(name), nil
}

// has reports whether name, in lower case, is in one of the domains.
func (d domains) has(name string) bool {
	for _, domain := range d {
		if within(domain, name) {
			return true
		}
	}
	return false
}

// within reports whether name is domain or below it. Both have a dot at their end. It is dns.IsSubDomain without taking both
// apart, for every query asks it several times.
func within(domain, name string) bool {
	rest := len(name) - len(domain)
	switch {
	case domain == ".":
		return true
	case rest < 0 || !strings.EqualFold(name[rest:], domain):
		return false
	case rest == 0:
		return true
	}
	above := strings.TrimRight(name[:rest-1], `\`)
	return name[rest-1] == '.' && (rest-1-len(above))%2 == 0 // else the dot is part of a label
}

// overrides are the addresses of names that no nameserver is asked about.
type overrides map[string][]netip.Addr // by name in lower case, dot at the end

// answer returns the answer to q if its name is overridden, else nil. Other records than addresses it does not have.
func (o overrides) answer(q query) *dns.Msg {
	if len(o) == 0 {
		return nil
	}
	addrs, ok := o[strings.ToLower(q.name)]
	if !ok {
		return nil
	}
	m := &dns.Msg{
		MsgHdr:   dns.MsgHdr{Response: true, RecursionAvailable: true},
		Question: []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}},
	}
	for _, a := range addrs {
		hdr := dns.RR_Header{Name: q.name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: overrideTTL}
		switch {
		case q.qtype == dns.TypeA && a.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: a.AsSlice()})
		case q.qtype == dns.TypeAAAA && a.Is6():
			hdr.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
		}
	}
	return m
}
