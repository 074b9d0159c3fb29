package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultAttempts = 2                // RES_DFLRETRY of glibc
	deadTime        = 30 * time.Second // how long a nameserver that kept silent is tried after the others
)

var errNoServers = errors.New("there are no nameservers")

// resolver is a set of nameservers and the way to them.
type resolver struct {
	p         *Proxy
	dial      func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	datagrams func(addr netip.AddrPort, receive func(payload []byte, err error)) (io.WriteCloser, error) // may be nil
	servers   []*upstream
	search    []string      // see ResolvConf.suffixes, without the root
	patience  time.Duration // for one nameserver, once
	attempts  int
	rotate    bool
	stream    bool // over TCP from the first
	turn      atomic.Uint32
}

// upstream is a nameserver.
type upstream struct {
	addr      netip.AddrPort
	deadUntil atomic.Int64 // Unix nanoseconds

	mu    sync.Mutex
	lanes map[string][]*lane // by network
}

// Attempt is one question to one nameserver.
type Attempt struct {
	Server  netip.AddrPort `json:"server"`
	Network string         `json:"network"` // udp or tcp
	Rcode   string         `json:"rcode,omitempty"`
	Err     string         `json:"error,omitempty"` // why there was no answer
	Took    time.Duration  `json:"tookNanos"`
}

// newResolver returns the resolver that rc describes. One nameserver gets two fifths of a query's time at most, so that
// another one, or the same one again, has a chance within the time that the program waits.
func (p *Proxy) newResolver(rc ResolvConf, dial func(context.Context, string, netip.AddrPort) (net.Conn, error)) *resolver {
	r := &resolver{p: p, dial: dial, patience: p.timeout * 2 / 5, attempts: defaultAttempts, rotate: rc.Rotate, stream: rc.UseVC}
	r.search = slices.DeleteFunc(rc.suffixes(), func(s string) bool { return s == "." })
	if rc.Timeout > 0 {
		r.patience = min(r.patience, rc.Timeout)
	}
	if rc.Attempts > 0 {
		r.attempts = min(rc.Attempts, maxAttempts)
	}
	for _, a := range rc.Nameservers[:min(len(rc.Nameservers), maxServers)] {
		r.servers = append(r.servers, &upstream{addr: netip.AddrPortFrom(a.Unmap(), 53), lanes: make(map[string][]*lane)})
	}
	return r
}

// exchange asks the nameservers in turn until one has an answer. SERVFAIL, NOTIMP and REFUSED make it try the next one,
// as in glibc's res_send; they are the answer if none has a better one. It notes what it did in c.
func (r *resolver) exchange(ctx context.Context, q query, c *call) (*dns.Msg, error) {
	err := errNoServers
	order := c.order // as begin has asked the first of them
	for range r.attempts {
		var refusal *dns.Msg
		if order == nil {
			order = r.order()
		}
		for _, server := range order {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("ask for %s %s: %w", q.name, dns.TypeToString[q.qtype], errors.Join(context.Cause(ctx), err))
			}
			var msg *dns.Msg
			msg, err = r.try(ctx, server, q, c)
			if err != nil {
				r.noteFailure(ctx, server, err)
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
		order = nil
	}
	return nil, fmt.Errorf("ask for %s %s: %w", q.name, dns.TypeToString[q.qtype], err)
}

// order returns the nameservers in the order of resolv.conf, or from another one on each time if that says so, those
// that kept silent lately last.
func (r *resolver) order() []*upstream {
	now, first := time.Now().UnixNano(), 0
	if r.rotate && len(r.servers) > 0 {
		first = int((r.turn.Add(1) - 1) % uint32(len(r.servers)))
	}
	alive := make([]*upstream, 0, len(r.servers))
	var dead []*upstream
	for i := range r.servers {
		u := r.servers[(first+i)%len(r.servers)]
		if now < u.deadUntil.Load() {
			dead = append(dead, u)
		} else {
			alive = append(alive, u)
		}
	}
	return append(alive, dead...)
}

func (r *resolver) noteFailure(ctx context.Context, server *upstream, err error) {
	if ctx.Err() != nil && r.p.ctx.Err() != nil {
		return // closed: not the nameserver's fault
	}
	now := time.Now()
	if now.UnixNano() >= server.deadUntil.Load() {
		r.p.log.LogAttrs(ctx, slog.LevelInfo, "nameserver does not answer", slog.Any("upstream", server.addr), slog.Any("err", err))
	}
	server.deadUntil.Store(now.Add(deadTime).UnixNano())
}

// try asks one nameserver: over UDP, without EDNS if it chokes on that, and over TCP if the answer was truncated.
func (r *resolver) try(ctx context.Context, server *upstream, q query, c *call) (*dns.Msg, error) {
	network := "udp"
	if r.stream {
		network = "tcp"
	}
	msg, err := r.roundTrip(ctx, network, server, q.message(true), c)
	if err != nil {
		return nil, err
	}
	edns := true
	if (msg.Rcode == dns.RcodeFormatError || msg.Rcode == dns.RcodeNotImplemented) && msg.IsEdns0() == nil {
		// RFC 6891 §7: a server from before EDNS.
		edns = false
		if msg, err = r.roundTrip(ctx, network, server, q.message(false), c); err != nil {
			return nil, err
		}
	}
	if !msg.Truncated || r.stream {
		return msg, nil
	}
	whole, err := r.roundTrip(ctx, "tcp", server, q.message(edns), c)
	if err != nil {
		return msg, nil // still truncated: the client learns that, and may ask again over TCP
	}
	return whole, nil
}

// message returns q as it goes to a nameserver; who sends it gives it an ID.
func (q query) message(edns bool) *dns.Msg {
	m := &dns.Msg{
		MsgHdr: dns.MsgHdr{
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

// roundTrip sends m to a nameserver and returns what it answers within one nameserver's time. The first time it is what begin
// has sent. A connection that had been used before may have been closed by the nameserver meanwhile: that is not its answer
// (RFC 7766 §6.2.4).
func (r *resolver) roundTrip(ctx context.Context, network string, server *upstream, m *dns.Msg, c *call) (*dns.Msg, error) {
	var msg *dns.Msg
	var err error
	start := time.Now()
	if sent := c.first; sent != nil {
		c.first = nil
		start = sent.at
		msg, err = sent.wait(ctx, r.patience)
	} else {
		r.p.stats.upstream.Add(1)
		msg, err = r.ask(ctx, network, server, m)
	}
	a := Attempt{Server: server.addr, Network: network, Took: time.Since(start)}
	if err != nil {
		a.Err = err.Error()
		r.p.stats.upstreamErrors.Add(1)
	} else {
		a.Rcode = dns.RcodeToString[msg.Rcode]
	}
	c.attempts = append(c.attempts, a)
	return msg, err
}

func (r *resolver) ask(ctx context.Context, network string, server *upstream, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	l, w := server.lane(r, network, m, nil)
	used := network == "tcp" && l.usedBefore()
	msg, err := l.roundTrip(ctx, w)
	if err != nil && used && ctx.Err() == nil && l.over() {
		l, w = server.lane(r, network, m, nil)
		msg, err = l.roundTrip(ctx, w)
	}
	return msg, err
}

// lane returns a lane to u that has taken m, opened if none has room. It is called from calls, which are bounded, and so
// are lanes.
func (u *upstream) lane(r *resolver, network string, m *dns.Msg, settled func()) (*lane, *waiter) {
	u.mu.Lock()
	defer u.mu.Unlock()
	open := u.lanes[network][:0]
	for _, l := range u.lanes[network] {
		if !l.over() {
			open = append(open, l)
		}
	}
	clear(u.lanes[network][len(open):])
	u.lanes[network] = open
	for _, l := range open {
		if w := l.take(m, settled); w != nil {
			return l, w
		}
	}
	l := newLane(network, u.addr, r.patience)
	w := l.take(m, settled) // it is new: there is room
	u.lanes[network] = append(open, l)
	// A call, which is in wg, waits for it.
	if network == "udp" && r.datagrams != nil {
		l.open(r.datagrams)
		r.p.wg.Go(func() { l.stay(r.p.ctx) })
	} else {
		r.p.wg.Go(func() { l.run(r.p.ctx, r.dial) })
	}
	return l, w
}
