package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// told runs two steps of which the second fails, in a mode, and returns what was
// said.
func told(mode progressMode, width int) string {
	var out strings.Builder
	u := newUI(nil, &out)
	u.progress = mode
	s := u.begin("api")
	s.width = func() int { return width }
	s.step("finding api")
	s.step("adding agent\x1b[2J")
	s.done(errors.New("no"))
	u.say("said")
	u.warn("careful", "look")
	u.fail(&fault.Error{Code: fault.Agent, ID: "BN1206", Reason: "no", Hint: "try"})
	return out.String()
}

func TestProgress(t *testing.T) {
	const rest = "warning: careful\nhint: look\nerror: no [BN1206]\nhint: try\n"
	for _, tt := range []struct {
		mode  progressMode
		width int
		want  string
	}{
		{progressPlain, 80, "finding api\nadding agent?[2J\nsaid\n" + rest},
		{progressAuto, 80, "finding api\nadding agent?[2J\nsaid\n" + rest}, // no terminal here
		{progressQuiet, 80, rest},
		{progressTTY, 80, "\r\x1b[K… finding api\r\x1b[K✓ finding api\n\r\x1b[K… adding agent?[2J\r\x1b[K✗ adding agent?[2J\nsaid\n" + rest},
		{progressTTY, 12, "\r\x1b[K… finding …\r\x1b[K✓ finding …\n\r\x1b[K… adding a…\r\x1b[K✗ adding a…\nsaid\n" + rest},
	} {
		// A step that takes longer than a tick, on a busy machine, has its time and
		// more pictures: then another try has to do.
		got := told(tt.mode, tt.width)
		for range 20 {
			if got == tt.want {
				break
			}
			got = told(tt.mode, tt.width)
		}
		if got != tt.want {
			t.Errorf("%s, %d columns:\n got %q\nwant %q", tt.mode, tt.width, got, tt.want)
		}
	}
}

func TestProgressJSON(t *testing.T) {
	var got []string
	for l := range strings.Lines(told(progressJSON, 80)) {
		var e event
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if e.Time.IsZero() {
			t.Errorf("%q has no time", l)
		}
		text := e.Session + " " + e.Step + " " + e.State + e.Message + e.Warning + e.Hint
		if e.Error != nil {
			text += e.Error.ID
		}
		got = append(got, strings.TrimSpace(text))
	}
	want := []string{"api finding api begun", "api finding api done", "api adding agent\x1b[2J begun", "api adding agent\x1b[2J failed", "said", "carefullook", "BN1206"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}
