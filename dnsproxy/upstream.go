package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	rounds     = 2                // how often each nameserver is tried (RES_DFLRETRY of glibc)
	deadTime   = 30 * time.Second // how long a nameserver that kept silent is tried after the others
	maxStrange = 32               // datagrams that do not belong to the query, before the try is given up
)

var (
	errNoServers = errors.New("the pod has no nameservers")
	errStrange   = errors.New("too many datagrams that are no answer to the query")
	errMismatch  = errors.New("the answer is about another question")
)

// upstream is a nameserver of the pod.
type upstream struct {
	addr      netip.AddrPort
	deadUntil atomic.Int64 // Unix nanoseconds
}

func (u *upstream) dead(now time.Time) bool { return now.UnixNano() < u.deadUntil.Load() }

// exchange asks the nameservers in turn until one has an answer. SERVFAIL, NOTIMP and REFUSED make it try the next one,
// as in glibc's res_send; they are the answer if none has a better one.
func (p *Proxy) exchange(ctx context.Context, q query) (*dns.Msg, error) {
	err := errNoServers
	for range rounds {
		var refusal *dns.Msg
		for _, server := range p.order() {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("ask for %s %s: %w", q.name, dns.TypeToString[q.qtype], errors.Join(context.Cause(ctx), err))
			}
			var msg *dns.Msg
			msg, err = p.try(ctx, server, q)
			if err != nil {
				p.noteFailure(ctx, server, err)
				continue
			}
			server.deadUntil.Store(0)
			switch msg.Rcode {
			case dns.RcodeServerFailure, dns.RcodeNotImplemented, dns.RcodeRefused:
				refusal = msg
				continue
			}
			return msg, nil
		}
		if refusal != nil {
			return refusal, nil
		}
	}
	return nil, fmt.Errorf("ask for %s %s: %w", q.name, dns.TypeToString[q.qtype], err)
}

// order returns the nameservers in the order of resolv.conf, those that kept silent lately last.
func (p *Proxy) order() []*upstream {
	now := time.Now()
	alive := make([]*upstream, 0, len(p.servers))
	var dead []*upstream
	for _, u := range p.servers {
		if u.dead(now) {
			dead = append(dead, u)
		} else {
			alive = append(alive, u)
		}
	}
	return append(alive, dead...)
}

func (p *Proxy) noteFailure(ctx context.Context, server *upstream, err error) {
	p.stats.upstreamErrors.Add(1)
	if ctx.Err() != nil && p.ctx.Err() != nil {
		return // closed: not the nameserver's fault
	}
	if !server.dead(time.Now()) {
		p.log.LogAttrs(ctx, slog.LevelInfo, "nameserver does not answer", slog.Any("upstream", server.addr), slog.Any("err", err))
	}
	server.deadUntil.Store(time.Now().Add(deadTime).UnixNano())
}

// try asks one nameserver: over UDP, without EDNS if it chokes on that, and over TCP if the answer was truncated.
func (p *Proxy) try(ctx context.Context, server *upstream, q query) (*dns.Msg, error) {
	msg, err := p.roundTrip(ctx, "udp", server.addr, q.message(true))
	if err != nil {
		return nil, err
	}
	edns := true
	if (msg.Rcode == dns.RcodeFormatError || msg.Rcode == dns.RcodeNotImplemented) && msg.IsEdns0() == nil {
		// RFC 6891 §7: a server from before EDNS.
		edns = false
		if msg, err = p.roundTrip(ctx, "udp", server.addr, q.message(false)); err != nil {
			return nil, err
		}
	}
	if !msg.Truncated {
		return msg, nil
	}
	whole, err := p.roundTrip(ctx, "tcp", server.addr, q.message(edns))
	if err != nil {
		p.stats.upstreamErrors.Add(1)
		return msg, nil // still truncated: the client learns that, and may ask again over TCP
	}
	return whole, nil
}

// message returns q as it goes to a nameserver.
func (q query) message(edns bool) *dns.Msg {
	m := &dns.Msg{
		MsgHdr: dns.MsgHdr{
			Id:                dns.Id(),
			RecursionDesired:  q.rd,
			AuthenticatedData: q.ad,
			CheckingDisabled:  q.cd,
		},
		Question: []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}},
	}
	if edns {
		m.SetEdns0(offeredSize, q.do)
	}
	return m
}

// roundTrip sends m to a nameserver and returns what it answers within one nameserver's time.
func (p *Proxy) roundTrip(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	p.stats.upstream.Add(1)
	ctx, cancel := context.WithTimeout(ctx, p.timeout*2/5)
	defer cancel()
	wire, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack query: %w", err)
	}
	c, err := p.dial(ctx, network, server)
	if err != nil {
		return nil, fmt.Errorf("dial %s %v: %w", network, server, err)
	}
	defer c.Close()
	// Ends reads and writes when the time is up, and at once when p is closed.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	if network == "tcp" {
		return streamRoundTrip(c, m, wire)
	}
	return datagramRoundTrip(c, m, wire)
}

func streamRoundTrip(c net.Conn, m *dns.Msg, wire []byte) (*dns.Msg, error) {
	if err := writeFrame(c, wire); err != nil {
		return nil, fmt.Errorf("send query: %w", err)
	}
	buf, err := readFrame(c)
	if err != nil {
		return nil, fmt.Errorf("receive answer: %w", err)
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(buf); err != nil {
		return nil, fmt.Errorf("unpack answer: %w", err)
	}
	if !answers(msg, m) {
		return nil, errMismatch
	}
	return msg, nil
}

func datagramRoundTrip(c net.Conn, m *dns.Msg, wire []byte) (*dns.Msg, error) {
	if _, err := c.Write(wire); err != nil {
		return nil, fmt.Errorf("send query: %w", err)
	}
	buf := make([]byte, maxUDPSize)
	for range maxStrange {
		n, err := c.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("receive answer: %w", err)
		}
		// Late, forged or broken datagrams must not end the wait for the true one.
		msg := new(dns.Msg)
		if err := msg.Unpack(buf[:n]); err == nil && answers(msg, m) {
			return msg, nil
		}
	}
	return nil, errStrange
}

// answers reports whether msg is a response to m. A nameserver that could not read the question may leave it out.
func answers(msg, m *dns.Msg) bool {
	if !msg.Response || msg.Id != m.Id || msg.Opcode != m.Opcode {
		return false
	}
	if len(msg.Question) == 0 {
		return msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError
	}
	a, b := msg.Question[0], m.Question[0]
	return len(msg.Question) == 1 && a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}
