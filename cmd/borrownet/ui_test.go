package main

import (
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// TestErrorIsOneLine: names come from people and texts from clusters.
func TestErrorIsOneLine(t *testing.T) {
	var out strings.Builder
	newUI(nil, &out).fail(&fault.Error{Op: "find session", Object: "a\nb", Reason: "none\x1b[2J\n", Hint: "first\nsecond"})
	if want := "error: find session a b: none?[2J\nhint: first\n      second\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
