package dnsproxy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Source is where an answer came from.
type Source string

// The sources.
const (
	FromPod      Source = "pod"      // a nameserver of the pod, now
	FromLaptop   Source = "laptop"   // a nameserver of the laptop, now
	FromCache    Source = "cache"    // either, earlier
	FromOverride Source = "override" // the person's own
)

// Explanation is how a query was answered.
type Explanation struct {
	Name   string        `json:"name"` // asked for
	Type   string        `json:"type"`
	Search []string      `json:"search"` // the pod's search list
	Ndots  int           `json:"ndots"`
	Local  string        `json:"local,omitempty"` // the domain for which the laptop's resolver is asked
	Steps  []Step        `json:"steps"`
	Rcode  string        `json:"rcode"`
	Answer []string      `json:"answer,omitempty"` // records in zone file syntax, the alias of a search included
	Err    string        `json:"error,omitempty"`  // why no nameserver had an answer: the rcode is ours
	Took   time.Duration `json:"tookNanos"`
}

// Step is the question about one name.
type Step struct {
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	From     Source    `json:"from"`
	Attempts []Attempt `json:"attempts,omitempty"` // questions to nameservers
	Rcode    string    `json:"rcode,omitempty"`
	Records  int       `json:"records"` // in the answer
	// TTL is how long the answer is kept from now on, in seconds; zero means that it is not.
	TTL uint32 `json:"ttl"`
	Err string `json:"error,omitempty"`
}

// Explain resolves name as a query of a program would be, and returns how. It counts among the queries of Stats.
func (p *Proxy) Explain(ctx context.Context, name, qtype string) (Explanation, error) {
	t, ok := dns.StringToType[strings.ToUpper(qtype)]
	if !ok {
		return Explanation{}, fmt.Errorf("%q is no type of record", qtype)
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return Explanation{}, fmt.Errorf("%q is no domain name", name)
	}
	if !p.enter() {
		return Explanation{}, errBusy
	}
	defer p.leave()
	p.stats.queries.Add(1)
	req := &request{msg: new(dns.Msg).SetQuestion(dns.Fqdn(name), t)}
	e := Explanation{Name: req.msg.Question[0].Name, Type: dns.TypeToString[t], Search: p.rules.suffixes, Ndots: p.rules.ndots}
	for _, d := range p.local {
		if within(d, e.Name) {
			e.Local = d
		}
	}
	start := time.Now()
	reply := req.check()
	if reply == nil {
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		tr := new(trace)
		res, err := p.resolve(ctx, req.query(), tr)
		e.Steps = tr.steps
		if err != nil {
			p.stats.failed.Add(1)
			e.Err = err.Error()
			reply = req.refuse(dns.RcodeServerFailure)
		} else {
			p.stats.countSource(res.from)
			reply = req.reply(res)
		}
	}
	p.stats.countReply(reply)
	e.Took = time.Since(start)
	e.Rcode = dns.RcodeToString[reply.Rcode]
	for _, rr := range reply.Answer {
		e.Answer = append(e.Answer, rr.String())
	}
	return e, nil
}

// trace notes the lookups of one run of a search. A nil trace notes nothing.
type trace struct{ steps []Step }

func (t *trace) restart() {
	if t != nil {
		t.steps = nil
	}
}

func (t *trace) note(q query, a answer, err error) {
	if t == nil {
		return
	}
	s := Step{Name: q.name, Type: dns.TypeToString[q.qtype], From: a.from, Attempts: a.attempts}
	if err != nil {
		s.Err = err.Error()
	} else {
		s.Rcode, s.Records = dns.RcodeToString[a.msg.Rcode], len(a.msg.Answer)
		if a.from != FromOverride {
			s.TTL = uint32(max(timeToLive(a.msg)-a.age, 0) / time.Second)
		}
	}
	t.steps = append(t.steps, s)
}
