package wire

import (
	"net/netip"
	"testing"
)

// TestIsMetadata: what may be allowed by name is nothing but metadata services.
func TestIsMetadata(t *testing.T) {
	for text, want := range map[string]bool{
		"169.254.169.254": true, "169.254.170.23": true, "fd00:ec2::23": true, "fd20:ce::254": true, "100.100.100.200": true,
		"127.0.0.1": false, "::1": false, "::ffff:169.254.169.254": false, "fe80::1": false, "192.0.2.1": false, "0.0.0.0": false, "224.0.0.1": false,
	} {
		if got := IsMetadata(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
