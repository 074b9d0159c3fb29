package dnsproxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

func TestLookupHost(t *testing.T) {
	p := newProxy(Config{
		Pod: podConf(), Dial: dnsproxytest.New(t, world()...).Dial, Local: []string{"home.example."},
		Hosts: map[string][]netip.Addr{"pinned.example.com": {netip.MustParseAddr("2001:db8::77")}},
	})
	defer p.Close()
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		name, host string
		want       []netip.Addr
		missing    bool // a nameserver says that there is none
	}{
		{name: "search_list", host: "orders", want: []netip.Addr{addr("192.0.2.1")}},
		{name: "override", host: "pinned.example.com", want: []netip.Addr{addr("2001:db8::77")}},
		{name: "address", host: "192.0.2.9", want: []netip.Addr{addr("192.0.2.9")}},
		{name: "mapped", host: "::ffff:192.0.2.9", want: []netip.Addr{addr("192.0.2.9")}},
		{name: "nobody", host: "nobody", missing: true},
		{name: "no_nameserver", host: "x.home.example"},
		{name: "no_name", host: "a..b"},
		{name: "empty", host: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := p.LookupHost(t.Context(), tt.host)
			if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
			if dns, ok := errors.AsType[*net.DNSError](err); ok != tt.missing || ok && !dns.IsNotFound {
				t.Errorf("error %v", err)
			}
		})
	}
	p.Close()
	if got, err := p.LookupHost(t.Context(), "orders"); err == nil {
		t.Errorf("after Close: %v", got)
	}
}
