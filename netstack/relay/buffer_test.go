package relay

import "testing"

// TestBuffersFit: the next buffer is one that the last read would have fitted, or a larger one if it was full.
func TestBuffersFit(t *testing.T) {
	var l loan
	defer l.giveBack()
	for i, step := range []struct{ read, next int }{
		{100, smallBuffer},
		{smallBuffer, 32 << 10},
		{32 << 10, 256 << 10},
		{100 << 10, 256 << 10}, // not full, and no smaller one would do
		{256 << 10, 256 << 10},
		{20 << 10, 32 << 10},
		{10 << 10, 32 << 10},
		{100, smallBuffer},
		{smallBuffer, 32 << 10},
	} {
		if have := len(l.take()); step.read > have {
			t.Fatalf("step %d: a buffer of %d bytes, want room for %d", i, have, step.read)
		}
		l.adapt(step.read)
		if got := len(l.take()); got != step.next {
			t.Errorf("after a read of %d bytes the next buffer has %d, want %d", step.read, got, step.next)
		}
	}
}
