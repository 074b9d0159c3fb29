package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

func TestParsePublish(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
		want session.Publish
		bad  bool
	}{
		{"default", nil, session.Publish{}, false},
		{"none", []string{"none"}, session.Publish{None: true}, false},
		{"as", []string{"18080:8080", "1:2"}, session.Publish{As: map[uint16]uint16{8080: 18080, 2: 1}}, false},
		{"both", []string{"none", "1:2"}, session.Publish{}, true},
		{"one-number", []string{"8080"}, session.Publish{}, true},
		{"zero", []string{"0:80"}, session.Publish{}, true},
		{"too-big", []string{"80:65536"}, session.Publish{}, true},
		{"word", []string{"a:b"}, session.Publish{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parsePublish(tt.in)
			if (err != nil) != tt.bad {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" && !tt.bad {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseLocal(t *testing.T) {
	got, names, err := parseLocal([]string{"192.0.2.7/24", "Corp.example.org", "198.51.100.1", "2001:db8::/32", "lan"})
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("2001:db8::/32")}
	if err != nil || cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })) != "" {
		t.Errorf("%v, %v", got, err)
	}
	if diff := cmp.Diff([]string{"corp.example.org.", "lan."}, names); diff != "" {
		t.Errorf("names (-want +got)\n%s", diff)
	}
	for _, bad := range []string{"", "a b", "192.0.2.0/33", "a..b", "https://example.org"} {
		if nets, names, err := parseLocal([]string{bad}); err == nil {
			t.Errorf("%q: got %v, %q", bad, nets, names)
		}
	}
}
