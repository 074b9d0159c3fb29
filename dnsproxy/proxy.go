// Package dnsproxy answers the DNS queries of wrapped programs as the pod's own resolver would.
//
// Programs keep the laptop's resolv.conf, so the proxy applies the pod's search list and ndots to the names that they
// ask, and forwards the queries to the pod's nameservers through a Dial function that leads into the pod. It keeps
// no cache.
//
// A Proxy owns one goroutine per upstream query and those of ServeTCP; Close ends and joins them all.
package dnsproxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Config configures a Proxy.
type Config struct {
	// Pod is the resolver configuration of the pod.
	Pod ResolvConf
	// Dial connects to a nameserver from inside the pod; network is "udp" or "tcp".
	Dial func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	// Timeout bounds the answer to one query with all its upstream queries. Zero means 5 s, what a stub resolver
	// waits (resolv.conf(5)). One nameserver gets two fifths of it.
	Timeout time.Duration
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// Proxy is a DNS server for the programs of one session.
type Proxy struct {
	cfg Config
}

// New returns a Proxy. It does no I/O.
func New(cfg Config) *Proxy { return &Proxy{cfg: cfg} }

// Answer returns the reply to the DNS message query, at most as long as the client can take when it came over UDP,
// or nil if it must be dropped.
func (p *Proxy) Answer(ctx context.Context, query []byte, udp bool) []byte { return nil }

// ServeTCP answers the queries that arrive on c (RFC 7766: several per connection, answered in any order) and
// returns when c is done, idle or ctx ends. It closes c.
func (p *Proxy) ServeTCP(ctx context.Context, c net.Conn) { c.Close() }

// Close aborts the queries in flight, closes the connections of ServeTCP and waits for both to end.
func (p *Proxy) Close() error { return nil }
