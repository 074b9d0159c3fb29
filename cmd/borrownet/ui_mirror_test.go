package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/netstack/replay"
)

// Of connections whose beginning was not captured status says that bytes of them are in none of its counts.
func TestReplayRowsOfBeginnings(t *testing.T) {
	got := fmt.Sprint(replayRows(replay.Stats{Before: 3}))
	if want := "3 connections without their beginning: bytes before"; !strings.Contains(got, want) {
		t.Errorf("status says %s, want %q in it", got, want)
	}
	if got := fmt.Sprint(replayRows(replay.Stats{Opened: 3})); strings.Contains(got, "beginning") {
		t.Errorf("status says %s of connections that were captured whole", got)
	}
}
