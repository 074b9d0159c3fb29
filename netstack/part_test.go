package netstack

import "testing"

func TestPartOf(t *testing.T) {
	const budget = 4 << 20
	for _, tt := range []struct{ conns, want int }{
		{0, maxPart}, {1, maxPart}, {16, maxPart}, {17, 128 << 10}, {32, 128 << 10}, {100, 32 << 10}, {512, minPart}, {100_000, minPart},
	} {
		if got := partOf(budget, tt.conns); got != tt.want {
			t.Errorf("part of each of %d conns = %d, want %d", tt.conns, got, tt.want)
		}
	}
}

// TestGrants: what is granted is never more than half of what is left, and can
// be given back.
func TestGrants(t *testing.T) {
	var g grants
	g.left.Store(1000)
	for _, tt := range []struct {
		n    int
		want bool
	}{{501, false}, {500, true}, {251, false}, {250, true}, {125, true}, {63, false}} {
		if got := g.take(tt.n); got != tt.want {
			t.Errorf("take %d of %d = %v, want %v", tt.n, g.left.Load(), got, tt.want)
		}
	}
	if g.left.Load() != 125 {
		t.Errorf("left = %d, want 125", g.left.Load())
	}
}
