package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

func testBoard(live bool, names ...string) (*board, *bytes.Buffer) {
	var out bytes.Buffer
	b := newBoard(newUI(&out, &out), names) // no terminal
	b.live, b.width, b.high = live, 40, 10
	return b, &out
}

// TestBoardOnATerminal: a picture replaces the one before, no line is wider than the
// terminal, and what is ready goes first where there is no room for all.
func TestBoardOnATerminal(t *testing.T) {
	b, out := testBoard(true, "api", "orders", "ledger")
	b.begin(0)
	b.step(0, "adding ephemeral container borrownet-agent-abcdefghijklm")
	b.drawLocked(8)
	first := out.String()
	if strings.Contains(first, "\x1b[") || strings.Count(first, "\n") != 3 || !strings.Contains(first, "orders  waiting") {
		t.Errorf("first picture:\n%s", first)
	}
	for line := range strings.Lines(first) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n >= 40 {
			t.Errorf("a line of %d: %q", n, line)
		}
	}
	out.Reset()
	b.begin(1)
	b.done(0, "pod shop/api-1", nil)
	b.done(1, "", &fault.Error{Op: "find", Object: "orders", Reason: "no"})
	b.drawLocked(2)
	second := out.String()
	if !strings.HasPrefix(second, "\x1b[3A\x1b[J") || strings.Contains(second, "api") || !strings.Contains(second, "orders  failed") || !strings.Contains(second, "ledger  waiting") {
		t.Errorf("second picture: %q", second)
	}
	out.Reset()
	b.begin(2)
	b.done(2, "", nil)
	b.close()
	last := out.String()
	if !strings.Contains(last, "api     ready") || !strings.Contains(last, "2 of 3 sessions are ready after ") {
		t.Errorf("last picture: %q", last)
	}
}

func TestBoardElsewhere(t *testing.T) {
	b, out := testBoard(false, "api")
	b.begin(0)
	b.step(0, "opening the tunnel")
	b.done(0, "pod shop/api-1", nil)
	b.close()
	took := b.rows[0].took()
	want := "api: opening the tunnel\napi: ready, after " + took + "\napi: pod shop/api-1\n1 of 1 sessions are ready after " + took + "\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.rows[0].over = b.rows[0].begun.Add(1234 * time.Millisecond)
	if got := fmt.Sprint(b.rows[0].took()); got != "1.2s" {
		t.Errorf("took %s", got)
	}
}
