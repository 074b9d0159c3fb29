package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
