package reclaim

import (
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	var r rest
	for i, tt := range []struct {
		used time.Duration
		due  bool
		why  string
	}{
		{200 * time.Millisecond, false, "it has begun"},
		{210 * time.Millisecond, false, "too little to speak of"},
		{3 * time.Second, false, "at work"},
		{5 * time.Second, false, "at work"},
		{5010 * time.Millisecond, false, "it may go on"},
		{5010 * time.Millisecond, true, "it rests"},
		{5060 * time.Millisecond, false, "given back already"},
		{5300 * time.Millisecond, false, "little, and at work"},
		{5310 * time.Millisecond, false, "little since"},
		{5560 * time.Millisecond, false, "at work"},
		{5570 * time.Millisecond, false, "it may go on"},
		{5580 * time.Millisecond, true, "little by little it was enough"},
	} {
		due := r.due(tt.used)
		if due != tt.due {
			t.Errorf("look %d, %v: due = %v, although %s", i, tt.used, due, tt.why)
		}
		if due {
			r.given(tt.used)
		}
	}
}

func TestUsed(t *testing.T) {
	before := used()
	for end := time.Now().Add(time.Minute); used() < before+20*time.Millisecond; {
		if time.Now().After(end) {
			t.Fatalf("still %v after a minute of work", used())
		}
	}
}
