package wg

import (
	"slices"
	"testing"
)

// TestArrivals: what has arrived is told whichever is known first, that it was sent or
// that the link has settled it. A flow that waits for the last packet of a lane would
// otherwise wait until something else leaves by that lane.
func TestArrivals(t *testing.T) {
	type step struct {
		settled           bool
		packet, datagrams uint64
	}
	for _, tt := range []struct {
		name  string
		steps []step
		told  []uint64
	}{
		{"settled_after", []step{{packet: 3, datagrams: 4}, {settled: true, datagrams: 4}}, []uint64{3}},
		{"settled_before", []step{{settled: true, datagrams: 4}, {packet: 3, datagrams: 4}}, []uint64{3}},
		{"in_part", []step{{packet: 3, datagrams: 4}, {packet: 5, datagrams: 7}, {settled: true, datagrams: 6}, {settled: true, datagrams: 7}}, []uint64{3, 5}},
		{"together", []step{{packet: 3, datagrams: 4}, {packet: 5, datagrams: 7}, {settled: true, datagrams: 7}}, []uint64{5}},
		{"late_word", []step{{settled: true, datagrams: 7}, {settled: true, datagrams: 4}, {packet: 5, datagrams: 7}}, []uint64{5}},
		{"not_yet", []step{{settled: true, datagrams: 3}, {packet: 3, datagrams: 4}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var told []uint64
			a := &arrivals{tell: func(n uint64) { told = append(told, n) }}
			for _, s := range tt.steps {
				if s.settled {
					a.settled(s.datagrams)
				} else {
					a.sent(s.packet, s.datagrams)
				}
			}
			if !slices.Equal(told, tt.told) {
				t.Errorf("told %v, want %v", told, tt.told)
			}
		})
	}
}
