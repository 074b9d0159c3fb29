// Package dnsproxy answers the DNS queries of wrapped programs as the pod's own resolver would.
//
// Programs keep the laptop's resolv.conf, so the proxy applies the pod's search list and ndots to the names that they
// ask, and forwards the queries to the pod's nameservers through a Dial function that leads into the pod. Names that the
// person wants from the laptop's resolver are asked there, and names that they gave addresses to nowhere.
//
// Answers are kept as long as their TTLs allow, and used names are asked for again before they expire; queries that are in
// flight at the same time are asked once. An answer is kept as a whole and under its question: no record of it is used to
// answer another one.
//
// It says SERVFAIL when it failed itself and NXDOMAIN only when a nameserver said so. EDNS is handled hop by hop (RFC
// 6891 §6.1.1): options of the client do not travel on.
//
// Most of the time of a question to the pod is spent waking goroutines up, so that the usual one (one datagram there, a good
// one back) has none of its own: who brings a query to Serve sends it, and who brings the answer replies. A Proxy owns one
// goroutine per upstream query that takes more than that, one per socket to a nameserver and those of ServeTCP; Close ends
// and joins them all.
package dnsproxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultTimeout = 5 * time.Second

	maxClients = 2048 // queries being answered
	maxCalls   = 4096 // upstream queries in flight, several for a search; those that nobody waits for any more included
	maxConns   = 256  // connections of ServeTCP
)

// Config configures a Proxy.
type Config struct {
	// Pod is the resolver configuration of the pod. Ndots is used as it is: ParseResolvConf has put in the default.
	Pod ResolvConf
	// Dial connects to a nameserver from inside the pod; network is "udp" or "tcp".
	Dial func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	// Datagrams, unless nil, opens what Dial does for "udp" in a quicker way: without I/O, and nobody has to be woken up to read.
	// receive is called, by whoever gets them, with the datagrams that come back, and with the errors that are the network's
	// answer; it does not wait, and may call Write, which does not wait either.
	Datagrams func(addr netip.AddrPort, receive func(payload []byte, err error)) (io.WriteCloser, error)
	// Local are the domains (see ParseDomain) whose names the laptop's resolver is asked for, with DialLaptop.
	Local      []string
	DialLaptop func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	// Hosts are the addresses of names that nobody is asked for, with or without a dot at their end.
	Hosts map[string][]netip.Addr
	// Timeout bounds the answer to one query with all its upstream queries. Zero means 5 s, what a stub resolver
	// waits (resolv.conf(5)). One nameserver gets two fifths of it.
	Timeout time.Duration
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// Proxy is a DNS server for the programs of one session.
type Proxy struct {
	timeout    time.Duration
	log        *slog.Logger
	rules      searchRules
	local      domains
	overrides  overrides
	dialLaptop func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	pod        *resolver
	laptop     atomic.Pointer[resolver]
	cache      *cache

	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // Answer, ServeTCP and the goroutines of calls; added to under mu while not closed, or by a call

	stats counters

	mu      sync.Mutex
	closed  bool
	clients int
	calls   map[query]*call // by key
	conns   map[net.Conn]struct{}
}

// New returns a Proxy that knows of no nameserver of the laptop, see SetLaptop. It does no I/O.
func New(cfg Config) *Proxy {
	p := &Proxy{
		timeout:    cfg.Timeout,
		log:        cfg.Logger,
		rules:      newSearchRules(cfg.Pod),
		local:      cfg.Local,
		overrides:  make(overrides),
		dialLaptop: cfg.DialLaptop,
		cache:      newCache(),
		calls:      make(map[query]*call),
		conns:      make(map[net.Conn]struct{}),
	}
	if p.timeout <= 0 {
		p.timeout = defaultTimeout
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	for name, addrs := range cfg.Hosts {
		p.overrides[strings.ToLower(dns.Fqdn(name))] = addrs
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.pod = p.newResolver(cfg.Pod, cfg.Dial)
	p.pod.datagrams = cfg.Datagrams
	p.laptop.Store(p.newResolver(ResolvConf{}, cfg.DialLaptop))
	return p
}

// SetLaptop makes rc the laptop's resolver configuration. What an earlier one answered is forgotten.
func (p *Proxy) SetLaptop(rc ResolvConf) {
	p.laptop.Store(p.newResolver(rc, p.dialLaptop))
	p.cache.forgetLocal()
}

// Answer returns the reply to the DNS message query, at most as long as the client can take when it came over UDP,
// or nil if it must be dropped. It returns within Config.Timeout, sooner if ctx ends.
func (p *Proxy) Answer(ctx context.Context, query []byte, udp bool) []byte {
	p.stats.queries.Add(1)
	if !p.enter() {
		p.stats.dropped.Add(1)
		return nil
	}
	defer p.leave()

	req, reply := parseRequest(query, udp)
	switch {
	case req == nil:
		p.stats.dropped.Add(1)
		return nil
	case reply == nil:
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		reply = p.answer(ctx, req)
	}
	p.stats.countReply(reply)
	return req.pack(reply)
}

// answer resolves a well-formed query.
func (p *Proxy) answer(ctx context.Context, req *request) *dns.Msg {
	res, err := p.resolve(ctx, req.query(), nil)
	return p.conclude(ctx, req, res, err)
}

// conclude turns what a search found into the reply, and counts it.
func (p *Proxy) conclude(ctx context.Context, req *request, res result, err error) *dns.Msg {
	if err != nil {
		q := req.query()
		p.stats.failed.Add(1)
		p.log.LogAttrs(ctx, slog.LevelDebug, "query failed", slog.String("qname", q.name),
			slog.String("qtype", dns.TypeToString[q.qtype]), slog.Any("err", err))
		return req.refuse(dns.RcodeServerFailure)
	}
	p.stats.countSource(res.from)
	return req.reply(res)
}

// Close aborts the queries in flight, closes the connections of ServeTCP and waits for both to end.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return net.ErrClosed
	}
	p.closed = true
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()

	p.cancel()
	var errs []error
	for c := range conns {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	p.wg.Wait()
	return errors.Join(errs...)
}

// enter takes a place among the queries being answered and reports whether there was one.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.clients >= maxClients {
		return false
	}
	p.clients++
	p.wg.Add(1)
	return true
}

func (p *Proxy) leave() {
	p.mu.Lock()
	p.clients--
	p.mu.Unlock()
	p.wg.Done()
}
