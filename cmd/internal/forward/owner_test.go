package forward

import (
	"net/netip"
	"testing"
)

// TestLists reads what lsof says on macOS.
func TestLists(t *testing.T) {
	const out = "p812\nf23\nn127.0.0.1:53222->127.0.0.1:5432\nf24\nn[::1]:53223->[::1]:5432\np900\nf3\nn127.0.0.1:5432\n"
	for _, tt := range []struct {
		local, peer string
		want        bool
	}{
		{"127.0.0.1:53222", "127.0.0.1:5432", true},
		{"[::1]:53223", "[::1]:5432", true},
		{"127.0.0.1:5322", "127.0.0.1:5432", false},
		{"127.0.0.1:5432", "127.0.0.1:53222", false},
		{"127.0.0.1:53222", "127.0.0.1:543", false},
	} {
		if got := lists([]byte(out), netip.MustParseAddrPort(tt.local), netip.MustParseAddrPort(tt.peer)); got != tt.want {
			t.Errorf("%s to %s: got %v", tt.local, tt.peer, got)
		}
	}
}
