package dnsproxy

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// hostsTTL is short: the file may change.
const hostsTTL = 5

// Hosts is what a hosts(5) file says.
type Hosts struct {
	addrs map[string][]netip.Addr // by lower-case name without a final dot
	names map[netip.Addr]string   // the first of a line
}

// ParseHosts reads a hosts file. Lines that are none are skipped, as a C library
// does. localhost is loopback even if the file does not say so (RFC 6761, 6.3).
func ParseHosts(text []byte) *Hosts {
	h := &Hosts{addrs: map[string][]netip.Addr{}, names: map[netip.Addr]string{}}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if a, err := netip.ParseAddr(fields[0]); err == nil {
			h.add(a.Unmap().WithZone(""), fields[1:])
		}
	}
	if _, ok := h.addrs["localhost"]; !ok {
		h.add(netip.AddrFrom4([4]byte{127, 0, 0, 1}), []string{"localhost"})
	}
	return h
}

func (h *Hosts) add(a netip.Addr, names []string) {
	if _, ok := h.names[a]; !ok {
		h.names[a] = strings.TrimSuffix(names[0], ".")
	}
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		h.addrs[name] = append(h.addrs[name], a)
	}
}

// Answer returns the reply to a query about a name or an address of the file, nil
// for all others. A name of the file has no other addresses than those there.
func (h *Hosts) Answer(query []byte) []byte {
	var m dns.Msg
	if m.Unpack(query) != nil || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || m.Question[0].Qclass != dns.ClassINET {
		return nil
	}
	q := m.Question[0]
	rrs, ok := h.records(q)
	if !ok {
		return nil
	}
	reply := new(dns.Msg)
	reply.SetReply(&m)
	reply.RecursionAvailable = true
	reply.Answer = rrs
	out, err := reply.Pack()
	if err != nil {
		return nil
	}
	return out
}

// records returns what answers q, and whether the file is who answers it.
func (h *Hosts) records(q dns.Question) (rrs []dns.RR, ok bool) {
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: hostsTTL}
	if q.Qtype == dns.TypePTR {
		for a, name := range h.names {
			if reverse, err := dns.ReverseAddr(a.String()); err == nil && strings.EqualFold(reverse, q.Name) {
				return []dns.RR{&dns.PTR{Hdr: hdr, Ptr: dns.Fqdn(name)}}, true
			}
		}
		return nil, false
	}
	addrs, ok := h.addrs[strings.ToLower(strings.TrimSuffix(q.Name, "."))]
	if !ok || q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
		return nil, false
	}
	for _, a := range addrs {
		switch {
		case a.Is4() && q.Qtype == dns.TypeA:
			rrs = append(rrs, &dns.A{Hdr: hdr, A: a.AsSlice()})
		case a.Is6() && q.Qtype == dns.TypeAAAA:
			rrs = append(rrs, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
		}
	}
	return rrs, true
}
