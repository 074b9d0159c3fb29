package main

import "testing"

// TestUnexplained: what is missing is explained to the byte, or it is not explained.
func TestUnexplained(t *testing.T) {
	counters := func(change func(*mirrorCounters)) mirrorCounters {
		var m mirrorCounters
		m.Replay.RequestBytes = 900
		m.Replay.Requests.Seen, m.Replay.Requests.Delivered = 9, 9
		change(&m)
		return m
	}
	for _, tt := range []struct {
		name string
		m    mirrorCounters
		came int
		want float64 // of 10 requests of 100 bytes
	}{
		{"missing", counters(func(*mirrorCounters) {}), 9, 1},
		{"lost", counters(func(m *mirrorCounters) { m.Replay.LostBytes = 100 }), 9, 0},
		{"cut", counters(func(m *mirrorCounters) {
			m.Replay.RequestBytes, m.Replay.Skipped, m.Replay.GapBytes = 930, 40, map[string]uint64{"hole": 30}
			m.Replay.Requests.Seen, m.Replay.Requests.Cut = 10, 1
		}), 9, 0},
		{"a-byte-too-few", counters(func(m *mirrorCounters) { m.Replay.LostBytes = 99 }), 9, 0.01},
		{"more-than-was-sent", counters(func(m *mirrorCounters) { m.Replay.LostBytes = 200 }), 9, 1},
		{"beginning-dropped", counters(func(m *mirrorCounters) { m.Capture.Dropped, m.Replay.Before = 1, 1 }), 9, 0},
		{"beginning-dropped-of-a-lost-one", counters(func(m *mirrorCounters) { m.Capture.Dropped, m.Capture.LostFlows = 1, 1 }), 9, 0},
		{"fin-dropped", counters(func(m *mirrorCounters) { m.Capture.Dropped, m.Replay.LostBytes = 1, 101 }), 9, 0},
		{"more-than-a-fin", counters(func(m *mirrorCounters) { m.Capture.Dropped, m.Replay.LostBytes = 1, 102 }), 9, 0.02},
		{"nothing-dropped", counters(func(m *mirrorCounters) { m.Replay.Before = 1 }), 9, 1},
		{"dropped-but-not-at-a-beginning", counters(func(m *mirrorCounters) { m.Capture.Dropped = 1 }), 9, 1},
		{"without-an-outcome", counters(func(m *mirrorCounters) { m.Replay.RequestBytes, m.Replay.Requests.Seen = 1000, 10 }), 9, 1},
		{"delivered-to-nobody", counters(func(m *mirrorCounters) { m.Replay.LostBytes = 100 }), 8, 1},
		{"broken-and-come", counters(func(m *mirrorCounters) {
			m.Replay.RequestBytes, m.Replay.Requests.Seen, m.Replay.Requests.Broken = 1000, 10, 1
		}), 10, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.m.unexplained(10, tt.came, 100); got != tt.want {
				t.Errorf("%v requests are not explained, want %v", got, tt.want)
			}
		})
	}
}

// TestUnexplainedBeginning: packets that the kernel has dropped explain no more than they can have carried.
func TestUnexplainedBeginning(t *testing.T) {
	var m mirrorCounters
	m.Replay.Requests.Seen, m.Replay.Requests.Delivered, m.Replay.Before, m.Capture.Dropped = 1, 1, 1, 2
	m.Replay.RequestBytes = 4*largest - 2*largest
	if got := m.unexplained(1, 1, 4*largest); got != 0 {
		t.Errorf("%v requests are not explained by two dropped packets", got)
	}
	m.Capture.Dropped = 1
	if got := m.unexplained(1, 1, 4*largest); got != 0.5 {
		t.Errorf("%v requests are not explained by one dropped packet, want 0.5", got)
	}
}
