package main

import (
	"slices"
	"testing"
)

// TestDefects: what is wrong or silently missing fails the bench, what is slow does not.
func TestDefects(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values samples
		fails  bool
	}{
		{"nothing-wrong", samples{{"mirror.upload.wrong", "borrownet"}: {0, 0}}, false},
		{"once-a-byte", samples{{"mirror.upload.wrong", "borrownet"}: {0, 0, 0, 1e-7}}, true},
		{"wrong", samples{{"mirror.wrong", "borrownet"}: {0, 1}}, true},
		{"slow", samples{{"up.first", "borrownet"}: {60}}, false},
		{"another-subject", samples{{"mirror.wrong", "direct"}: {1}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := (Results{Rows: tt.values.rows()}).defects(); (err != nil) != tt.fails {
				t.Errorf("got %v, fails %v", err, tt.fails)
			}
		})
	}
}

// TestDefectsHaveBars: a row without a bar could not fail.
func TestDefectsHaveBars(t *testing.T) {
	for _, id := range defects {
		if i := slices.IndexFunc(bars, func(b bar) bool { return b.id == id }); i < 0 || bars[i].held == nil {
			t.Errorf("%s has no bar", id)
		}
	}
}
