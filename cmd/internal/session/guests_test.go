package session

import (
	"net/netip"
	"strings"
	"testing"
)

// TestAdmitNetworks refuses networks of an engine that hide what is known of the
// cluster.
func TestAdmitNetworks(t *testing.T) {
	l := newLab(t)
	s := l.start()
	s.info.Env = append(s.info.Env, "DB_SERVICE_HOST=203.0.113.77", "OTHER_HOST=203.0.113.200")
	for _, tt := range []struct {
		name string
		net  netip.Prefix
		want string // what is hidden, "" if nothing is
	}{
		{"apart", netip.MustParsePrefix("172.18.0.0/16"), ""},
		{"pod", netip.PrefixFrom(podIP, 24).Masked(), "the pod's address"},
		{"pod_v6", netip.PrefixFrom(podIP6, 64).Masked(), "the pod's address"},
		{"resolver", netip.PrefixFrom(resolver.Addr(), 32), "the pod's name server"},
		{"service", netip.MustParsePrefix("203.0.113.64/26"), "DB_SERVICE_HOST"},
		{"no_service", netip.MustParsePrefix("203.0.113.192/26"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := s.admitNetworks([]netip.Prefix{netip.MustParsePrefix("172.30.0.0/16"), tt.net})
			switch {
			case err == nil && tt.want != "":
				t.Errorf("%v is admitted", tt.net)
			case err != nil && (tt.want == "" || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v: %v, want %q", tt.net, err, tt.want)
			}
		})
	}
}
