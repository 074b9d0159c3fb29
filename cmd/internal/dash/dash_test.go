package dash

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/printable/printabletest"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

var errOver = errors.New("none is up")

func newTestModel(t *testing.T) *model {
	return newModel(t.Context(), Config{
		Poll: func(context.Context) ([]session.Status, error) { return nil, nil },
		Over: func(err error) bool { return errors.Is(err, errOver) },
		Rows: func(st session.Status) [][2]string {
			rows := [][2]string{{"pod", st.Target.Pod}, {"empty", ""}, {"long", strings.Repeat("word ", 40)}}
			for i := range 30 {
				rows = append(rows, [2]string{"row", fmt.Sprint(i)})
			}
			return rows
		},
	})
}

func status(name string, state session.State, trip time.Duration, in uint64) session.Status {
	st := session.Status{Session: name, State: state, RoundTrip: trip, Since: time.Unix(1, 0)}
	st.Target.Namespace, st.Target.Pod = "shop", name+"-1\x1b[2J"
	st.Traffic.BytesIn, st.Traffic.Flows = in, 3
	st.DNS.Queries = in / 100
	return st
}

// answers gives the model three answers, a second apart.
func answers(m *model) {
	for i := range 3 {
		n := uint64(i)
		m.Update(answer{at: time.Unix(1700000000+int64(i), 0), list: []session.Status{
			status("api", session.Ready, time.Duration(i)*2*time.Millisecond, 1_000_000*n), status("web", session.Lost, 0, 0),
		}})
	}
}

func press(m *model, keys ...string) (last tea.Cmd) {
	named := map[string]tea.Key{"down": {Code: tea.KeyDown}, "up": {Code: tea.KeyUp}, "enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "tab": {Code: tea.KeyTab}}
	for _, k := range keys {
		key, ok := named[k]
		if !ok {
			key = tea.Key{Code: rune(k[0]), Text: k}
		}
		_, last = m.Update(tea.KeyPressMsg(key))
	}
	return last
}

// text is the picture without styles; it must fit the terminal.
func text(t *testing.T, m *model) string {
	t.Helper()
	lines := strings.Split(m.draw(), "\n")
	if len(lines) > m.height {
		t.Errorf("%d lines on a terminal of %d", len(lines), m.height)
	}
	for _, l := range lines {
		if w := ansi.StringWidth(l); w > m.width {
			t.Errorf("a line of %d columns on a terminal of %d: %q", w, m.width, l)
		}
	}
	return ansi.Strip(strings.Join(lines, "\n"))
}

func wants(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

func TestOverview(t *testing.T) {
	m := newTestModel(t)
	wants(t, text(t, m), "asking the daemon")
	answers(m)
	m.Update(tea.WindowSizeMsg{Width: 180, Height: 24})
	wide := text(t, m)
	wants(t, wide, "1 of 2 ready", "SESSION", "IDENTITY", "▸ api", "  web", "shop/api-1?[2J", "4ms", "×▄█", "1 MB", "10000", "lost")
	if strings.Contains(m.draw(), "\x1b[2J") {
		t.Error("a pod's name drives the terminal")
	}
	for _, width := range []int{200, 100, 80, 60, 40, 20, 3} {
		for _, height := range []int{40, 24, 8, 3, 1} {
			m.Update(tea.WindowSizeMsg{Width: width, Height: height})
			got := text(t, m)
			if width >= 40 && height >= 8 {
				wants(t, got, "api", "web", "lost", "4ms")
			}
			press(m, "enter")
			text(t, m)
			press(m, "?")
			text(t, m)
			press(m, "?", "esc")
		}
	}
}

// styles are what the dashboard itself tells a terminal between its words.
var styles = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestPodsDoNotDriveTheDashboard: nothing that a cluster says does.
func TestPodsDoNotDriveTheDashboard(t *testing.T) {
	m := newTestModel(t)
	m.cfg.Rows = func(session.Status) [][2]string { return [][2]string{{"row", printabletest.Hostile}} }
	m.Update(tea.WindowSizeMsg{Width: 400, Height: 100})
	pictures := func(where string) {
		t.Helper()
		printabletest.Inert(t, where, styles.ReplaceAllString(m.draw(), ""))
	}
	var st session.Status
	printabletest.Poison(&st)
	m.Update(answer{at: time.Unix(1700000000, 0), list: []session.Status{st}})
	pictures("overview")
	press(m, "enter")
	pictures("details")
	m.Update(answer{at: time.Unix(1700000001, 0), err: errors.New(printabletest.Hostile)})
	press(m, "esc")
	pictures("error")
}

func TestKeys(t *testing.T) {
	m := newTestModel(t)
	press(m, "enter", "down", "up") // nothing is there yet
	answers(m)
	press(m, "down", "down")
	wants(t, text(t, m), "▸ web")
	press(m, "enter")
	wants(t, text(t, m), "web  lost", "3 without an answer", "pod", "web-1?[2J", "row")
	press(m, "tab")
	wants(t, text(t, m), "api  ready", "least 2ms, mean 3ms, most 4ms, 1 without an answer")
	for range 100 {
		press(m, "down")
	}
	wants(t, text(t, m), "row          29")
	press(m, "esc")
	wants(t, text(t, m), "▸ api")
	press(m, "?")
	wants(t, text(t, m), "what is shown")
	press(m, "?", "p")
	m.Update(answer{at: time.Unix(1700000009, 0)})
	wants(t, text(t, m), "paused", "▸ api") // the picture stays
	press(m, "p")
	m.Update(answer{at: time.Unix(1700000010, 0), list: []session.Status{status("web", session.Ready, time.Millisecond, 0)}})
	wants(t, text(t, m), "▸ web", "1 of 1 ready")
	if len(m.past) != 1 {
		t.Errorf("the past of %d sessions is kept", len(m.past))
	}
	if cmd := press(m, "q"); cmd == nil || cmd() != tea.Quit() {
		t.Error("q does not quit")
	}
}

// TestDetailsOfASessionThatEnds goes back to the list.
func TestDetailsOfASessionThatEnds(t *testing.T) {
	m := newTestModel(t)
	answers(m)
	press(m, "enter")
	m.Update(answer{at: time.Unix(1700000010, 0), list: []session.Status{status("web", session.Ready, time.Millisecond, 0)}})
	wants(t, text(t, m), "▸ web", "choose")
}

func TestErrors(t *testing.T) {
	m := newTestModel(t)
	answers(m)
	m.Update(answer{err: &fault.Error{Op: "talk to the daemon", Reason: "it does not answer\n"}})
	wants(t, text(t, m), "talk to the daemon: it does not answer", "▸ api")
	_, cmd := m.Update(answer{err: errOver})
	if cmd == nil || cmd() != tea.Quit() || !errors.Is(m.over, errOver) {
		t.Errorf("no session is left, and it goes on: %v", m.over)
	}
}

func TestHistory(t *testing.T) {
	var h history
	for i := range 2 * window {
		h.add(status("api", session.Ready, time.Duration(i+1), uint64(i)*500), time.Unix(int64(i)*2, 0))
	}
	if len(h.trips) != window || h.trips[window-1] != 2*window || h.in != 250 {
		t.Errorf("%d trips, the last %d, %v bytes/s", len(h.trips), h.trips[len(h.trips)-1], h.in)
	}
	h.add(status("api", session.Ready, 1, 0), time.Unix(10_000, 0))
	if h.in != 0 {
		t.Errorf("a counter that begins anew moves at %v", h.in)
	}
	if got := sparks([]time.Duration{0, 1, 4, 8}, 3); got != "▁▄█" {
		t.Errorf("sparks %q", got)
	}
	if got := sparks(nil, 3) + sparks([]time.Duration{1}, 0); got != "" {
		t.Errorf("sparks of nothing: %q", got)
	}
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 1234: "1.23 kB", 5e6: "5 MB", 2e12: "2e+03 GB"} {
		if got := amount(n); got != want {
			t.Errorf("amount(%v) = %q, want %q", n, got, want)
		}
	}
}
