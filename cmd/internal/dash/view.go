package dash

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/printable"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// The styles. Without colours, as NO_COLOR wants it, the texts say the same.
var (
	strong  = ansi.NewStyle().Bold()
	faint   = ansi.NewStyle().Faint()
	good    = ansi.NewStyle().ForegroundColor(ansi.Green)
	poor    = ansi.NewStyle().ForegroundColor(ansi.Yellow)
	bad     = ansi.NewStyle().ForegroundColor(ansi.Red).Bold()
	picked  = ansi.NewStyle().Reverse(true)
	ofState = map[session.State]ansi.Style{session.Ready: good, session.Connecting: poor, session.Reconnecting: poor, session.Reattaching: poor, session.Lost: bad}
)

// View implements tea.Model.
func (m *model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	v.WindowTitle = "borrownet"
	return v
}

// draw returns a picture that is as large as the terminal at most.
func (m *model) draw() string {
	var body []string
	keys := "↑↓ choose   enter details   p pause   ? help   q quit"
	switch {
	case m.help:
		body, keys = helpLines, "any key: back   q quit"
	case m.detail:
		body, keys = m.details(), "↑↓ scroll   tab next   esc back   p pause   q quit"
	default:
		body = m.overview()
	}
	room := max(m.height-4, 1)
	if m.detail && !m.help {
		m.top = max(min(m.top, len(body)-room), 0)
		body = body[m.top:]
	} else if !m.help {
		body = around(body, m.chosen+1, room)
	}
	lines := append([]string{m.title(), ""}, body[:min(len(body), room)]...)
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, faint.Styled(keys))
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, m.width, "…")
	}
	return strings.Join(lines[:min(len(lines), m.height)], "\n")
}

// around returns the lines from 1 on that line at is among, below line 0.
func around(lines []string, at, room int) []string {
	if len(lines) <= room || room < 2 {
		return lines
	}
	from := max(min(at-room/2, len(lines)-room+1), 1)
	return append(lines[:1:1], lines[from:]...)
}

func (m *model) title() string {
	text := strong.Styled("borrownet") + "  "
	switch {
	case !m.asked:
		return text + "asking the daemon"
	case m.err != nil:
		f := fault.From(m.err)
		return text + bad.Styled(printable.Line(f.Error()))
	}
	ready := 0
	for _, st := range m.list {
		if st.State == session.Ready {
			ready++
		}
	}
	text += fmt.Sprintf("%d of %d ready  %s", ready, len(m.list), m.now.Format(time.TimeOnly))
	if m.paused {
		text += "  " + poor.Styled("paused")
	}
	return text
}

// column is one of the overview.
type column struct {
	head  string
	width int
	right bool
	// need is the terminal's width below which it is left out.
	need  int
	cell  func(st session.Status, h *history) string
	style func(st session.Status) ansi.Style // nil = none
}

// columns are those of the overview. The first takes what room is left.
var columns = []column{
	{head: "SESSION", width: 10, cell: func(st session.Status, _ *history) string { return st.Session }},
	{head: "STATE", width: 12, cell: func(st session.Status, _ *history) string { return string(st.State) },
		style: func(st session.Status) ansi.Style { return ofState[st.State] }},
	{head: "POD", width: 30, need: 120, cell: func(st session.Status, _ *history) string { return st.Target.Namespace + "/" + st.Target.Pod }},
	{head: "IDENTITY", width: 36, need: 170, cell: func(st session.Status, _ *history) string {
		if st.Mesh == nil {
			return ""
		}
		return strings.TrimPrefix(st.Mesh.Identity, "spiffe://")
	}},
	{head: "ROUND TRIP", width: 10, right: true, cell: func(st session.Status, _ *history) string { return trip(st.RoundTrip) }},
	{width: 16, need: 60, cell: func(_ session.Status, h *history) string { return sparks(h.trips, 16) }},
	{head: "IN/s", width: 8, right: true, need: 80, cell: func(_ session.Status, h *history) string { return amount(h.in) }},
	{head: "OUT/s", width: 8, right: true, need: 80, cell: func(_ session.Status, h *history) string { return amount(h.out) }},
	{head: "FLOWS", width: 5, right: true, need: 46, cell: func(st session.Status, _ *history) string { return strconv.Itoa(st.Traffic.Flows) }},
	{head: "NAMES/s", width: 7, right: true, need: 90, cell: func(_ session.Status, h *history) string { return strconv.Itoa(int(h.asked + 0.5)) }},
	{head: "CARRIER", width: 10, need: 135, cell: func(st session.Status, _ *history) string { return st.Carrier }},
}

// overview has a line per session below a head.
func (m *model) overview() []string {
	var show []column
	used := 0
	for _, c := range columns {
		if m.width >= c.need {
			show = append(show, c)
			used += c.width + 1
		}
	}
	show[0].width = max(show[0].width+min(m.width-used-2, 20), 8)
	var head []string
	for _, c := range show {
		head = append(head, fit(c.head, c.width, c.right))
	}
	lines := []string{faint.Styled("  " + strings.Join(head, " "))}
	for i, st := range m.list {
		var cells []string
		for _, c := range show {
			text := fit(printable.Line(c.cell(st, m.past[st.Session])), c.width, c.right)
			if c.style != nil && i != m.chosen {
				text = c.style(st).Styled(text)
			}
			cells = append(cells, text)
		}
		text := strings.Join(cells, " ")
		if i == m.chosen {
			lines = append(lines, "▸ "+picked.Styled(text))
		} else {
			lines = append(lines, "  "+text)
		}
	}
	return lines
}

// details are all that is known of the chosen session.
func (m *model) details() []string {
	if m.name() == "" {
		return nil
	}
	st := m.list[m.chosen]
	h := m.past[st.Session]
	least, mean, most, silent := h.extremes()
	lines := []string{
		strong.Styled(printable.Line(st.Session)) + "  " + ofState[st.State].Styled(printable.Line(string(st.State))), "",
		faint.Styled(fit("last "+strconv.Itoa(len(h.trips))+" s", 12, false)) + " " + sparks(h.trips, max(m.width-14, 8)),
		faint.Styled(fit("", 12, false)) + fmt.Sprintf(" least %s, mean %s, most %s, %d without an answer", trip(least), trip(mean), trip(most), silent),
		faint.Styled(fit("now", 12, false)) + fmt.Sprintf(" %s/s in, %s/s out, %.0f names/s", amount(h.in), amount(h.out), h.asked), "",
	}
	for _, row := range m.cfg.Rows(st) {
		if row[1] == "" {
			continue
		}
		for i, part := range strings.Split(ansi.Wrap(printable.Line(row[1]), max(m.width-14, 10), ""), "\n") {
			name := row[0]
			if i > 0 {
				name = ""
			}
			lines = append(lines, faint.Styled(fit(name, 12, false))+" "+part)
		}
	}
	return lines
}

var helpLines = []string{
	strong.Styled("keys"), "",
	"↑ ↓ or k j        choose a session; in its details, scroll",
	"enter             all that is known of the session",
	"tab               the next session's details",
	"esc               back to the list",
	"p or space        pause: the picture stays as it is",
	"q or ctrl-c       leave; the sessions stay up",
	"",
	strong.Styled("what is shown"), "",
	"ROUND TRIP        of a request to the agent and back, just now; × = no answer",
	"IN/s OUT/s        bytes of the session's tunnel; to ask for this takes about 2 kB/s",
	"FLOWS             connections and UDP flows of its programs",
	"NAMES/s           DNS queries of its programs",
}

// fit makes text as wide as width.
func fit(text string, width int, right bool) string {
	text = ansi.Truncate(text, width, "…")
	pad := strings.Repeat(" ", max(width-ansi.StringWidth(text), 0))
	if right {
		return pad + text
	}
	return text + pad
}

// trip is a round trip, or that there was none.
func trip(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// amount is a number of bytes in few characters.
func amount(n float64) string {
	for _, unit := range []string{"B", "kB", "MB"} {
		if n < 999.5 {
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.3g GB", n)
}
