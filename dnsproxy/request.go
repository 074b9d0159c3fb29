package dnsproxy

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	headerLen = 12 // RFC 1035 §4.1.1

	// The UDP payload size that we offer, to clients and nameservers alike: what passes unfragmented almost
	// everywhere (DNS flag day 2020). Clients that can take more get more.
	offeredSize = 1232
	maxUDPSize  = 4096 // most that a client gets over UDP, whatever it offers

	// How long a client may keep the alias that stands for a search, at most. The list can change with the target.
	maxAliasTTL = 30

	anyTTL = 3600 // seconds: it does not change
)

// request is a query of a client.
type request struct {
	msg *dns.Msg
	opt *dns.OPT // nil if the client does not speak EDNS
	udp bool
}

// parseRequest reads a query. It returns the reply if that is clear from the query alone, and a nil request if it must
// be dropped without one: too short to have an ID, or not a query (two servers must not answer each other for ever).
func parseRequest(buf []byte, udp bool) (*request, *dns.Msg) {
	if len(buf) < headerLen || buf[2]&0x80 != 0 {
		return nil, nil
	}
	r := &request{msg: new(dns.Msg), udp: udp}
	if opcode := int(buf[2]>>3) & 0xf; opcode != dns.OpcodeQuery {
		r.msg.Id, r.msg.Opcode = binary.BigEndian.Uint16(buf), opcode
		return r, r.refuse(dns.RcodeNotImplemented)
	}
	if err := r.msg.Unpack(buf); err != nil {
		id, rd := r.msg.Id, r.msg.RecursionDesired
		r.msg = &dns.Msg{MsgHdr: dns.MsgHdr{Id: id, RecursionDesired: rd}}
		return r, r.refuse(dns.RcodeFormatError)
	}
	return r, r.check()
}

// check returns the reply to a query that is not for us to resolve.
func (r *request) check() *dns.Msg {
	signed := false
	for _, rr := range r.msg.Extra {
		switch rr := rr.(type) {
		case *dns.OPT:
			if r.opt != nil {
				return r.refuse(dns.RcodeFormatError) // RFC 6891 §6.1.1
			}
			r.opt = rr
		case *dns.TSIG, *dns.SIG:
			signed = true
		}
	}
	switch {
	case len(r.msg.Question) != 1:
		return r.refuse(dns.RcodeFormatError) // RFC 9619
	case r.opt != nil && r.opt.Version() != 0:
		return r.refuse(dns.RcodeBadVers)
	case signed, r.msg.Question[0].Qclass != dns.ClassINET:
		return r.refuse(dns.RcodeRefused)
	}
	switch r.msg.Question[0].Qtype {
	case dns.TypeAXFR, dns.TypeIXFR, dns.TypeTKEY, dns.TypeTSIG, dns.TypeOPT, dns.TypeMAILA, dns.TypeMAILB:
		return r.refuse(dns.RcodeRefused)
	case dns.TypeANY:
		return r.any()
	}
	return nil
}

// any answers a query of type ANY: there are records, but none is told (RFC 8482 §4.2).
func (r *request) any() *dns.Msg {
	return r.finish(&dns.Msg{
		MsgHdr: dns.MsgHdr{RecursionAvailable: true},
		Answer: []dns.RR{&dns.HINFO{
			Hdr: dns.RR_Header{Name: r.msg.Question[0].Name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: anyTTL},
			Cpu: "RFC8482",
		}},
	})
}

// query returns what to ask upstream.
func (r *request) query() query {
	q := r.msg.Question[0]
	return query{
		name:  q.Name,
		qtype: q.Qtype,
		rd:    r.msg.RecursionDesired,
		ad:    r.msg.AuthenticatedData,
		cd:    r.msg.CheckingDisabled,
		do:    r.opt != nil && r.opt.Do(),
	}
}

// refuse returns a reply of ours without records.
func (r *request) refuse(rcode int) *dns.Msg {
	return r.finish(&dns.Msg{MsgHdr: dns.MsgHdr{Rcode: rcode, RecursionAvailable: true}})
}

// reply turns what was found into the reply to the client, who may have asked for a shorter name.
func (r *request) reply(res result) *dns.Msg {
	msg, age := res.msg, uint32((res.age+time.Second-1)/time.Second) // rounded up: nobody keeps it beyond its TTL
	out := &dns.Msg{
		MsgHdr: dns.MsgHdr{
			Authoritative:      msg.Authoritative,
			Truncated:          msg.Truncated,
			RecursionAvailable: msg.RecursionAvailable,
			AuthenticatedData:  msg.AuthenticatedData,
			Rcode:              msg.Rcode,
		},
	}
	answer := aged(msg.Answer, msg.Question[0].Name, res.name, age)
	asked := r.msg.Question[0].Name
	if res.name != asked && msg.Rcode == dns.RcodeSuccess {
		// The expanded name was proven, if at all; the alias is ours.
		out.AuthenticatedData = false
		out.Answer = append(out.Answer, &dns.CNAME{
			Hdr:    dns.RR_Header{Name: asked, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: aliasTTL(msg) - min(age, aliasTTL(msg))},
			Target: ownerLike(res.name, answer),
		})
	}
	out.Answer = append(out.Answer, answer...)
	out.Ns = aged(msg.Ns, msg.Question[0].Name, res.name, age)
	out.Extra = aged(msg.Extra, msg.Question[0].Name, res.name, age)
	return r.finish(out)
}

// ownerLike returns name as the records about it spell it: nameservers may answer in another case than they were asked in.
func ownerLike(name string, rrs []dns.RR) string {
	for _, rr := range rrs {
		if strings.EqualFold(rr.Header().Name, name) {
			return rr.Header().Name
		}
	}
	return name
}

// aged returns copies of rrs that are age seconds older. A nameserver that has repeated the upper case of a question, as
// was, in its answer does so for every case, as asked. Records of the hop between us and the nameserver are left out.
func aged(rrs []dns.RR, was, asked string, age uint32) []dns.RR {
	repeats := was != strings.ToLower(was)
	var out []dns.RR
	for _, rr := range rrs {
		switch rr.Header().Rrtype {
		case dns.TypeOPT, dns.TypeTSIG, dns.TypeSIG:
			continue
		}
		rr = dns.Copy(rr)
		h := rr.Header()
		h.Ttl -= min(h.Ttl, age)
		if repeats && h.Name == was {
			h.Name = asked
		}
		out = append(out, rr)
	}
	return out
}

// aliasTTL returns how long the alias of an answer may be kept: as long as all of it.
func aliasTTL(msg *dns.Msg) uint32 {
	ttl := uint32(maxAliasTTL)
	for _, rr := range msg.Answer {
		ttl = min(ttl, rr.Header().Ttl)
	}
	if len(msg.Answer) == 0 {
		for _, rr := range msg.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(ttl, soa.Hdr.Ttl, soa.Minttl) // RFC 2308 §5
			}
		}
	}
	return ttl
}

// finish gives out the ID, question and EDNS of r.
func (r *request) finish(out *dns.Msg) *dns.Msg {
	out.Id = r.msg.Id
	out.Response = true
	out.Opcode = r.msg.Opcode
	out.RecursionDesired = r.msg.RecursionDesired
	out.CheckingDisabled = r.msg.CheckingDisabled
	if len(r.msg.Question) == 1 {
		out.Question = r.msg.Question
	}
	if r.opt != nil {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(offeredSize)
		opt.SetDo(r.opt.Do())
		out.Extra = append(out.Extra, opt)
	} else if out.Rcode > 0xf {
		out.Rcode = dns.RcodeServerFailure // extended codes need an OPT record
	}
	return out
}

// limit returns how many bytes of reply the client can take.
func (r *request) limit() int {
	switch {
	case !r.udp:
		return dns.MaxMsgSize
	case r.opt == nil:
		return dns.MinMsgSize
	}
	return min(max(int(r.opt.UDPSize()), dns.MinMsgSize), maxUDPSize) // RFC 6891 §6.2.3
}

// pack returns out in wire format, truncated to what the client can take.
func (r *request) pack(out *dns.Msg) []byte {
	limit := r.limit()
	out.Truncate(limit) // compresses what would be too long
	buf, err := out.Pack()
	if err == nil && len(buf) <= limit {
		return buf
	}
	// A record of the nameserver that the library reads but cannot write again.
	empty := r.refuse(dns.RcodeServerFailure)
	if err == nil {
		empty.Rcode, empty.Truncated = out.Rcode, true
	}
	if buf, err = empty.Pack(); err != nil {
		return nil
	}
	return buf
}
