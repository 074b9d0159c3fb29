// Package zone answers DNS queries from a fixed set of records, for worlds that are made up: the demonstration's
// cluster and the nameservers of tests.
//
// A Zone is plain data; Serve answers on a socket and a listener and owns their goroutines.
package zone

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// maxChain bounds the CNAMEs that one answer follows.
const maxChain = 8

// Zone is a set of records. It does not change, and is safe for concurrent use.
type Zone struct {
	records map[string][]dns.RR // by lower-case owner
}

// New returns a Zone of records, one per string in zone file syntax. Names in the zone of an SOA record get it in
// negative answers.
func New(records ...string) (*Zone, error) {
	z := &Zone{records: make(map[string][]dns.RR)}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, fmt.Errorf("read record %q: %w", text, err)
		}
		if rr == nil {
			return nil, fmt.Errorf("read record %q: nothing is in it", text)
		}
		name := strings.ToLower(rr.Header().Name)
		z.records[name] = append(z.records[name], rr)
	}
	return z, nil
}

// Answer returns the answer to q. Over UDP it is cut to what the client takes.
func (z *Zone) Answer(q *dns.Msg, network string) *dns.Msg {
	m := z.answer(q)
	if network == "udp" {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		m.Truncate(size)
	}
	return m
}

func (z *Zone) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(4096, opt.Do())
	}
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	name, qtype := q.Question[0].Name, q.Question[0].Qtype
	for range maxChain {
		rrs, exists := z.find(name)
		if !exists {
			m.Rcode = dns.RcodeNameError
		}
		target, data := "", false
		for _, rr := range rrs {
			if t := rr.Header().Rrtype; t == qtype || t == dns.TypeCNAME || qtype == dns.TypeANY {
				m.Answer = append(m.Answer, rr)
				data = true
			}
			if cname, ok := rr.(*dns.CNAME); ok && qtype != dns.TypeCNAME {
				target = cname.Target
			}
		}
		if target == "" {
			if !data {
				m.Ns = z.authority(name)
			}
			return m
		}
		name = target
	}
	return m
}

// find returns the records of name, and whether it exists: itself, above another name, or by a wildcard.
func (z *Zone) find(name string) (rrs []dns.RR, exists bool) {
	lower := strings.ToLower(name)
	if rrs, ok := z.records[lower]; ok {
		return rename(rrs, name), true
	}
	for owner := range z.records {
		if dns.IsSubDomain(lower, owner) {
			return nil, true
		}
	}
	if _, parent, ok := strings.Cut(lower, "."); ok {
		if rrs, ok := z.records["*."+parent]; ok {
			return rename(rrs, name), true
		}
	}
	return nil, false
}

// rename returns copies of rrs that name owns, in the case of the question as real servers do.
func rename(rrs []dns.RR, name string) []dns.RR {
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		out[i].Header().Name = name
	}
	return out
}

// authority returns the SOA record of the zone that name is in, if known.
func (z *Zone) authority(name string) []dns.RR {
	for name = strings.ToLower(name); ; {
		for _, rr := range z.records[name] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return []dns.RR{dns.Copy(rr)}
			}
		}
		i, end := dns.NextLabel(name, 0)
		if end {
			return nil
		}
		name = name[i:]
	}
}
