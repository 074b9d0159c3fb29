package session

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/guard"
	"github.com/borrownet/borrownet/netstack/relay"
)

// GuardStatus is what was kept from leaving the pod.
type GuardStatus struct {
	ReadOnly bool     `json:"readOnly"`
	Deny     []string `json:"deny,omitempty"`
	Refused  uint64   `json:"refused"` // requests
	Denied   uint64   `json:"denied"`  // connections
	Last     string   `json:"last,omitempty"`
}

// A Denial is a destination that programs may not connect to.
type Denial struct {
	prefix netip.Prefix // the zero one: see host
	host   string       // "" and no prefix: any
	port   uint16       // 0: any
}

// ParseDenial reads HOST, ADDRESS or CIDR, each with :PORT or without, or :PORT.
func ParseDenial(text string) (Denial, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, "0"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	bare := strings.Trim(host, "[]")
	switch {
	case err != nil, n == 0 && port != "0", host == "" && n == 0:
		return Denial{}, fmt.Errorf("%q is not HOST, ADDRESS or CIDR, with :PORT or without, nor :PORT", text)
	case host == "":
		return Denial{port: uint16(n)}, nil
	}
	if prefix, err := netip.ParsePrefix(bare); err == nil {
		return Denial{prefix: prefix.Masked(), port: uint16(n)}, nil
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		return Denial{prefix: netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), port: uint16(n)}, nil
	}
	if _, err := ParseDomain(host); err != nil {
		return Denial{}, fmt.Errorf("%q: %w", text, err)
	}
	return Denial{host: host, port: uint16(n)}, nil
}

// denyPatience bounds the question for the addresses of a name that is denied.
const denyPatience = 5 * time.Second

// guarded looks into what programs send to the pod. A nil one lets all pass.
type guarded struct {
	readOnly bool
	denials  []Denial
	dial     func(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error)
	resolve  func(ctx context.Context, name string) ([]netip.Addr, error)
	lost     func() bool
	log      *slog.Logger

	refused, denied atomic.Uint64
	mu              sync.Mutex
	last            string // guarded by mu: what was kept from leaving
}

// newGuarded returns what the request asks for, nil if that is nothing.
func (s *Session) newGuarded() (*guarded, error) {
	if !s.req.ReadOnly && len(s.req.Deny) == 0 {
		return nil, nil
	}
	g := &guarded{
		readOnly: s.req.ReadOnly, lost: s.fabric.lost.Load, log: s.log,
		dial: func(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
			return s.now.Load().dialPod(ctx, network, dst)
		},
		resolve: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return s.now.Load().dns.LookupHost(ctx, name)
		},
	}
	for _, text := range s.req.Deny {
		d, err := ParseDenial(text)
		if err != nil {
			return nil, err
		}
		g.denials = append(g.denials, d)
	}
	return g, nil
}

// denies reports whether programs may not connect to dst, and counts it. A name whose
// addresses are not known denies nothing more than before.
func (g *guarded) denies(ctx context.Context, dst netip.AddrPort) bool {
	if g == nil || !slices.ContainsFunc(g.denials, func(d Denial) bool { return g.matches(ctx, d, dst) }) {
		return false
	}
	g.denied.Add(1)
	g.note("a connection to " + dst.String())
	return true
}

func (g *guarded) matches(ctx context.Context, d Denial, dst netip.AddrPort) bool {
	switch {
	case d.port != 0 && d.port != dst.Port():
		return false
	case d.prefix.IsValid():
		return d.prefix.Contains(dst.Addr())
	case d.host == "":
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, denyPatience)
	defer cancel()
	addrs, err := g.resolve(ctx, d.host)
	if err != nil {
		g.log.Debug("name to be denied is not known", "name", d.host, "err", err)
	}
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == dst.Addr() })
}

// note remembers what was kept from leaving.
func (g *guarded) note(what string) {
	g.log.Info("kept from leaving the pod", "what", what)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = what
}

// carry joins a program's connection to its destination, through the pod.
func (g *guarded) carry(ctx context.Context, r *netstack.TCPRequest) {
	dst := r.Flow().Dst
	if g.denies(ctx, dst) {
		r.Reject(syscall.EACCES)
		return
	}
	dialing, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	peer, err := g.dial(dialing, "tcp", dst)
	if err != nil {
		r.Reject(err)
		return
	}
	pod, ok := peer.(relay.Conn)
	if !ok {
		peer.Close()
		r.Reject(syscall.ENETUNREACH)
		return
	}
	c, err := r.Accept()
	if err != nil {
		peer.Close()
		return
	}
	g.copy(ctx, c, pod)
}

// copy carries a connection of a program.
func (g *guarded) copy(ctx context.Context, program, pod relay.Conn) {
	if g == nil || !g.readOnly {
		relay.Copy(ctx, program, pod, relay.Options{})
		return
	}
	if refusal := guard.Refused(guard.Copy(ctx, program, pod)); refusal != nil {
		g.refused.Add(1)
		g.note(refusal.Error())
	}
}

// status is nil if nothing is looked into.
func (g *guarded) status(deny []string) *GuardStatus {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return &GuardStatus{ReadOnly: g.readOnly, Deny: deny, Refused: g.refused.Load(), Denied: g.denied.Load(), Last: g.last}
}
