package dnsproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/miekg/dns"
)

// LookupHost returns the addresses that a program gets for host, those of IPv4 first. An address is its own. It counts
// among the queries of Stats. The error is a *net.DNSError where a nameserver said that there is none.
func (p *Proxy) LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	if _, ok := dns.IsDomainName(host); !ok || host == "" {
		return nil, fmt.Errorf("%q is no host name", host)
	}
	if !p.enter() {
		return nil, errBusy
	}
	defer p.leave()
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var (
		wg    sync.WaitGroup
		found [2][]netip.Addr
		errs  [2]error
	)
	for i, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		wg.Go(func() { found[i], errs[i] = p.addresses(ctx, host, t) })
	}
	wg.Wait()
	all := append(found[0], found[1]...)
	switch {
	case len(all) > 0: // an error of the other family says nothing about these
		return all, nil
	case errs[0] != nil:
		return nil, fmt.Errorf("resolve %s: %w", host, errs[0])
	case errs[1] != nil:
		return nil, fmt.Errorf("resolve %s: %w", host, errs[1])
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// addresses asks for the records of host of one family. There being none is no error.
func (p *Proxy) addresses(ctx context.Context, host string, t uint16) ([]netip.Addr, error) {
	p.stats.queries.Add(1)
	req := &request{msg: new(dns.Msg).SetQuestion(dns.Fqdn(host), t)}
	reply := req.check()
	if reply == nil {
		res, err := p.resolve(ctx, req.query(), nil)
		if err != nil {
			p.stats.failed.Add(1)
			return nil, err
		}
		p.stats.countSource(res.from)
		reply = req.reply(res)
	}
	p.stats.countReply(reply)
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("the nameserver says %s", dns.RcodeToString[reply.Rcode])
	}
	var out []netip.Addr
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				out = append(out, a)
			}
		case *dns.AAAA:
			if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out, nil
}
