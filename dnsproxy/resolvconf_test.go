package dnsproxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseResolvConf(t *testing.T) {
	localhost := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	tests := []struct {
		name string
		text string
		want ResolvConf
	}{
		{"empty", "", ResolvConf{Nameservers: localhost, Ndots: 1}},
		{
			"pod", "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 192.0.2.53\noptions ndots:5\n",
			ResolvConf{
				Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
				Search:      []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"},
				Ndots:       5,
				Options:     []string{"ndots:5"},
			},
		},
		{
			"nameservers", "nameserver 192.0.2.1\nnameserver\t2001:db8::1\nnameserver x\nnameserver\n nameserver 192.0.2.2\n" +
				"nameserver 192.0.2.3#x\nnameserver 192.0.2.4 ; x\nnameserver fe80::1%eth0\n#nameserver 192.0.2.5\n; nameserver 192.0.2.6\n",
			ResolvConf{
				Nameservers: []netip.Addr{
					netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.3"),
					netip.MustParseAddr("192.0.2.4"), netip.MustParseAddr("fe80::1%eth0"),
				},
				Ndots: 1,
			},
		},
		{"search-wins", "domain example.org\nsearch a.example.org b.example.org.", ResolvConf{Nameservers: localhost, Ndots: 1,
			Search: []string{"a.example.org", "b.example.org"}}},
		{"domain-wins", "search a.example.org b.example.org\ndomain example.org x", ResolvConf{Nameservers: localhost, Ndots: 1,
			Search: []string{"example.org"}}},
		{"empty-search-is-none", "search a.example.org\nsearch\nsearch \t", ResolvConf{Nameservers: localhost, Ndots: 1,
			Search: []string{"a.example.org"}}},
		{"root", "search .", ResolvConf{Nameservers: localhost, Ndots: 1, Search: []string{"."}}},
		{"ndots-capped", "options ndots:99 edns0", ResolvConf{Nameservers: localhost, Ndots: 15, Options: []string{"ndots:99", "edns0"}}},
		{"ndots-huge", "options ndots:99999999999999999999", ResolvConf{Nameservers: localhost, Ndots: 15,
			Options: []string{"ndots:99999999999999999999"}}},
		{"ndots-none", "options ndots:x", ResolvConf{Nameservers: localhost, Ndots: 0, Options: []string{"ndots:x"}}},
		{"ndots-last", "options ndots:5\noptions timeout:1 ndots:2", ResolvConf{Nameservers: localhost, Ndots: 2,
			Timeout: time.Second, Options: []string{"ndots:5", "timeout:1", "ndots:2"}}},
		{"all-options", "options timeout:3 attempts:4 rotate use-vc edns0 trust-ad", ResolvConf{Nameservers: localhost, Ndots: 1,
			Timeout: 3 * time.Second, Attempts: 4, Rotate: true, UseVC: true,
			Options: []string{"timeout:3", "attempts:4", "rotate", "use-vc", "edns0", "trust-ad"}}},
		{"options-capped", "options timeout:600 attempts:99", ResolvConf{Nameservers: localhost, Ndots: 1,
			Timeout: 30 * time.Second, Attempts: 5, Options: []string{"timeout:600", "attempts:99"}}},
		{"options-without-number", "options timeout attempts:x", ResolvConf{Nameservers: localhost, Ndots: 1,
			Options: []string{"timeout", "attempts:x"}}},
		{"carriage-return", "nameserver 192.0.2.1\r\nsearch example.org\r\n", ResolvConf{Ndots: 1,
			Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Search: []string{"example.org"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseResolvConf(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseResolvConfError(t *testing.T) {
	broken := errors.New("broken")
	if _, err := ParseResolvConf(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch example.org\noptions ndots:5\n")
	f.Fuzz(func(t *testing.T, text string) {
		rc, err := ParseResolvConf(strings.NewReader(text))
		if err != nil {
			t.Skip()
		}
		if rc.Ndots < 0 || rc.Ndots > maxNdots || len(rc.Nameservers) == 0 {
			t.Errorf("got %+v", rc)
		}
		newSearchRules(rc)
	})
}
