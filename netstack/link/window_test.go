package link

import (
	"testing"
	"time"
)

// way is a path that delays, and carries so many bytes per second behind a queue without end.
type way struct {
	delay time.Duration
	rate  int
}

// settle sends as much as w allows for a while and returns the queueing delay and the share of the rate in use at the end.
func (p way) settle(w *window, length time.Duration) (queueing time.Duration, used float64) {
	const datagram = 64 << 10
	now := time.Unix(0, 0)
	free := now // when the way has carried what was sent
	type sent struct {
		seq      uint64
		at, done time.Time
	}
	var flying []sent
	next, bytes, carried := uint64(0), 0, 0
	begin, half := now, now.Add(length/2)
	for now.Sub(begin) < length {
		for bytes+datagram <= w.size {
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(float64(datagram) / float64(p.rate) * float64(time.Second)))
			next++
			flying = append(flying, sent{next, now, free.Add(p.delay)})
			bytes += datagram
		}
		w.limited = true
		first := flying[0]
		flying = flying[1:]
		now = first.done
		bytes -= datagram
		if now.After(half) {
			carried += datagram
		}
		queueing = now.Sub(first.at) - p.delay
		w.acked(first.seq, next, now.Sub(first.at), now)
	}
	return queueing, float64(carried) / float64(p.rate) / now.Sub(half).Seconds()
}

func TestWindowFollowsTheWay(t *testing.T) {
	tests := []struct {
		name string
		way  way
		most time.Duration // of queueing
		used float64
	}{
		{"loopback", way{time.Millisecond, 100e6}, 2 * queueTarget, 0.95},
		{"office", way{20 * time.Millisecond, 50e6}, 2 * queueTarget, 0.95},
		{"far", way{60 * time.Millisecond, 40e6}, 2 * queueTarget, 0.95},
		{"far-and-fast-ends-at-the-bound", way{100 * time.Millisecond, 200e6}, queueTarget, float64(maxWindow) / 0.1 / 200e6 * 0.9},
		{"slow-ends-at-the-least", way{20 * time.Millisecond, 1e6}, minWindow * time.Second / 1e6 * 11 / 10, 0.95},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWindow()
			queueing, used := tt.way.settle(&w, 30*time.Second)
			if queueing > tt.most || used < tt.used {
				t.Errorf("settles at %d bytes: %v of queueing, %.2f of the rate; want at most %v, at least %.2f",
					w.size, queueing, used, tt.most, tt.used)
			}
		})
	}
}

func TestWindowGrowsOnlyWhenUsed(t *testing.T) {
	w := newWindow()
	now := time.Unix(0, 0)
	for seq := range uint64(100) {
		now = now.Add(time.Millisecond)
		w.acked(seq+1, seq+1, time.Millisecond, now)
	}
	if w.size != firstWindow {
		t.Errorf("window of an idle link went from %d to %d", firstWindow, w.size)
	}
}

func TestWindowBelievesInALongerWay(t *testing.T) {
	w := newWindow()
	way{time.Millisecond, 100e6}.settle(&w, 5*time.Second)
	if _, used := (way{50 * time.Millisecond, 40e6}).settle(&w, 60*time.Second); used < 0.9 {
		t.Errorf("only %.2f of the rate used after the way became longer", used)
	}
}
