package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/borrownet/borrownet/netstack/replay"
)

// request prints one line about a mirrored request.
func (u *ui) request(r replay.Request) {
	answer := r.Fate
	if r.Status != 0 {
		answer = fmt.Sprint(r.Status)
	} else if r.Fate == "delivered" {
		answer = "no answer"
	}
	fmt.Fprintln(u.out, line(fmt.Sprintf("%s  %v  %s %s%s  %s", r.Time.Format("15:04:05.000"), r.Client, r.Method, r.Host, r.Target, answer)))
}

// difference prints how the two answers to a request differ, as a table.
func (u *ui) difference(d replay.Difference) {
	fmt.Fprintln(u.out, line(fmt.Sprintf("%s %s%s", d.Method, d.Host, d.Target)))
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  \tlive\tlocal")
	for _, f := range d.Differs {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", cell(f.What), cell(f.Live), cell(f.Local))
	}
	w.Flush() // errors of standard output are found where the summary is printed
}

// cell is a text as a cell of a table.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	return line(text)
}

// replayed sums up a replay.
func replayed(s replay.Stats) string {
	out := []string{
		"requests: " + outcomesText(s.Requests),
		"other streams: " + outcomesText(s.Streams),
	}
	if s.Streams.Seen == 0 {
		out = out[:1]
	}
	for _, why := range slices.Sorted(maps.Keys(s.Gaps)) {
		out = append(out, fmt.Sprintf("bytes missing in the recording (%s): %d in %d places", why, s.GapBytes[why], s.Gaps[why]))
	}
	if s.TLS > 0 {
		out = append(out, fmt.Sprintf("connections with TLS, which cannot be read: %d", s.TLS))
	}
	if s.Before > 0 {
		out = append(out, fmt.Sprintf("connections without their beginning: %d, entered at a request: %d", s.Before, s.Joined))
	}
	return strings.Join(out, "\n")
}

// replayRows are what status says of what the local program got.
func replayRows(s replay.Stats) [][2]string {
	rows := [][2]string{{"mirrored", "requests " + outcomesText(s.Requests)}}
	if s.Streams.Seen > 0 {
		rows = append(rows, [2]string{"", "other streams " + outcomesText(s.Streams)})
	}
	for _, speaks := range slices.Sorted(maps.Keys(s.Waiting)) {
		rows = append(rows, [2]string{"", fmt.Sprintf("%d connections of %s cannot be read %s", s.Waiting[speaks], speaks, untilWhen(speaks))})
	}
	if s.Before > 0 {
		rows = append(rows, [2]string{"", fmt.Sprintf("%d connections without their beginning: bytes before their first captured packet are not counted", s.Before)})
	}
	for _, why := range slices.Sorted(maps.Keys(s.Gaps)) {
		rows = append(rows, [2]string{"", fmt.Sprintf("%d gaps of %d bytes: %s", s.Gaps[why], s.GapBytes[why], why)})
	}
	if s.Problem != "" {
		rows = append(rows, [2]string{"", "the program here is not reached: " + s.Problem})
	}
	return rows
}

// untilWhen says when connections of a protocol can be read again.
func untilWhen(speaks string) string {
	switch speaks {
	case "tls":
		return "at all"
	case "http/1", "unknown":
		return "before their next request begins"
	}
	return "before they are opened anew: they were open before the capture"
}

// outcomesText says what became of requests or streams.
func outcomesText(o replay.Outcomes) string {
	parts := []string{fmt.Sprintf("%d, delivered %d", o.Seen, o.Delivered)}
	for _, p := range []struct {
		n    uint64
		what string
	}{
		{o.Probes, "health probes left out"}, {o.Filtered, "filtered"}, {o.Sampled, "sampled out"}, {o.Capped, "over the rate"},
		{o.Refused, "refused by the program"}, {o.Broken, "broken off by the program"}, {o.Slow, "given up, the program is slow"}, {o.Cut, "incomplete"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}
