package main

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// draw returns n values around a median, as skewed as latencies are.
func draw(random *rand.Rand, n int, around, spread float64) []float64 {
	values := make([]float64, n)
	for i := range values {
		values[i] = around + spread*(math.Exp(random.NormFloat64())-1)
	}
	return values
}

func TestIntervalOfEqualValues(t *testing.T) {
	if low, high := interval([]float64{3, 3, 3}); low != 3 || high != 3 {
		t.Errorf("got %v to %v, want 3 to 3", low, high)
	}
}

func TestIntervalIsReproducible(t *testing.T) {
	values := draw(rand.New(rand.NewPCG(1, 2)), 20, 0, 5)
	low, high := interval(values)
	if l, h := interval(values); l != low || h != high {
		t.Errorf("got %v to %v and then %v to %v", low, high, l, h)
	}
	if m := median(values); !(low < m && m < high) {
		t.Errorf("%v to %v is not around the median %v", low, high, m)
	}
}

// TestIntervalCovers draws many runs of a known median: about 95 % of the intervals
// have it.
func TestIntervalCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const runs = 150
	covered := 0
	for range runs {
		if low, high := interval(draw(random, 15, 7, 4)); low <= 7 && 7 <= high {
			covered++
		}
	}
	if covered < runs*90/100 || covered == runs {
		t.Errorf("%d of %d intervals have the median, want about 95 %%", covered, runs)
	}
}

func TestIntervalShrinks(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	few, many := draw(random, 10, 0, 5), draw(random, 60, 0, 5)
	low, high := interval(few)
	if l, h := interval(many); h-l >= high-low {
		t.Errorf("60 values give %v to %v, 10 values %v to %v", l, h, low, high)
	}
}

func TestJudge(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	around := func(n int, median, spread float64) []float64 { return draw(random, n, median, spread) }
	for _, tt := range []struct {
		name                 string
		differences, control []float64
		same, beside         verdict // with and without something; beside another program
	}{
		{"no_difference", around(20, 0, 2), around(20, 25, 2), withinNoise, noWorse},
		{"small_difference", around(20, 4, 2), around(20, 25, 2), withinNoise, noWorse},
		{"slower", around(20, 25, 2), around(20, 25, 2), outside, outside},
		{"faster", around(20, -25, 2), around(20, 25, 2), outside, noWorse},
		{"perhaps_slower", around(20, 10, 2), around(20, 25, 2), inconclusive, inconclusive},
		{"perhaps_faster", around(20, -10, 2), around(20, 25, 2), inconclusive, noWorse},
		{"too_noisy", around(12, 0, 60), around(12, 25, 2), inconclusive, inconclusive},
		{"control_not_seen", around(20, 0, 2), around(20, 0, 2), inconclusive, inconclusive},
		{"control_small", around(20, 0, 2), around(20, 6, 1), inconclusive, inconclusive},
		{"control_too_noisy", around(20, 0, 2), around(20, 5, 40), inconclusive, inconclusive},
		{"too_few", around(5, 0, 0.1), around(5, 25, 0.1), inconclusive, inconclusive},
		{"no_control", around(20, 0, 2), nil, inconclusive, inconclusive},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(tt.differences, tt.control, allowance{percent: 10}); got != tt.same {
				t.Errorf("got %s, want %s", got, tt.same)
			}
			if got := judge(tt.differences, tt.control, allowance{percent: 10, orBetter: true}); got != tt.beside {
				t.Errorf("or better: got %s, want %s", got, tt.beside)
			}
		})
	}
}

// TestRowsOfPairs: a row of paired differences has its interval and is held only when
// it is within its allowance.
func TestRowsOfPairs(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	s := samples{}
	s.add("live.moving.p50", "borrownet", draw(random, 20, 1, 2)...)
	s.add("live.moving.p50", "control", draw(random, 20, 26, 2)...)
	s.add("live.moving.p99", "borrownet", draw(random, 20, 60, 2)...)
	s.add("live.moving.p99", "control", draw(random, 20, 26, 2)...)
	s.add("live.failed", "borrownet", 0, 0, 1)
	got := map[string]Row{}
	for _, r := range s.rows() {
		got[r.ID+" "+r.Subject] = r
	}
	for _, tt := range []struct {
		row     string
		verdict verdict
		held    bool
	}{
		{"live.moving.p50 borrownet", noWorse, true},
		{"live.moving.p99 borrownet", outside, false},
		{"live.failed borrownet", "", false},
	} {
		r, ok := got[tt.row]
		if !ok || r.Held == nil || *r.Held != tt.held || r.Verdict != tt.verdict {
			t.Errorf("row %s is %+v, want held %v, verdict %q", tt.row, r, tt.held, tt.verdict)
		}
		if paired := strings.HasPrefix(tt.row, "live.moving.p"); paired != (r.Low != nil && r.High != nil) {
			t.Errorf("row %s has the interval %v to %v", tt.row, r.Low, r.High)
		}
	}
	if r := got["live.moving.p50 control"]; r.Held != nil || r.Low == nil {
		t.Errorf("row of the control: %+v, want an interval and no bar", r)
	}
}

func TestPaced(t *testing.T) {
	var moved atomic.Int64
	over := errors.New("over")
	begin := time.Now()
	pieces := 0
	err := paced(func(b []byte) (int, error) {
		if pieces++; pieces > 20 {
			return 0, over
		}
		return len(b), nil
	}, 1000, begin, &moved)
	if took := time.Since(begin); !errors.Is(err, over) || moved.Load() != 200 || took < 200*time.Millisecond {
		t.Errorf("moved %d bytes in %v, %v; want 200 in at least 200ms", moved.Load(), took, err)
	}
}

func TestDifference(t *testing.T) {
	if got := difference(4, 5); got != 25 {
		t.Errorf("got %v, want 25", got)
	}
}

func TestUnknownGroup(t *testing.T) {
	err := samples{}.collect(options{group: "nothing"})
	if err == nil || !strings.Contains(err.Error(), "up, link, direct, cost, kill, delay, dns, live, mirror") {
		t.Errorf("got %v, want the groups that there are", err)
	}
}
