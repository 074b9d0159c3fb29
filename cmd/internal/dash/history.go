package dash

import (
	"time"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// window is how many answers are remembered of a session.
const window = 120

// history is what a session did lately.
type history struct {
	since time.Time       // when the session was set up
	trips []time.Duration // round trips, the oldest first; 0 = no answer

	// The last answer, and what has moved per second since the one before.
	at      time.Time
	traffic session.Traffic
	queries uint64
	in, out float64 // bytes
	asked   float64 // DNS queries
}

func (h *history) add(st session.Status, at time.Time) {
	h.trips = append(h.trips, st.RoundTrip)
	if n := len(h.trips) - window; n > 0 {
		h.trips = append(h.trips[:0], h.trips[n:]...)
	}
	if took := at.Sub(h.at).Seconds(); !h.at.IsZero() && took > 0 {
		h.in = rate(h.traffic.BytesIn, st.Traffic.BytesIn, took)
		h.out = rate(h.traffic.BytesOut, st.Traffic.BytesOut, took)
		h.asked = rate(h.queries, st.DNS.Queries, took)
	}
	h.at, h.traffic, h.queries = at, st.Traffic, st.DNS.Queries
}

// rate is how fast a counter grows. One that is smaller than before was begun anew.
func rate(before, now uint64, seconds float64) float64 {
	if now < before {
		return 0
	}
	return float64(now-before) / seconds
}

// extremes are the shortest, the mean and the longest round trip, and how many
// questions had no answer.
func (h *history) extremes() (least, mean, most time.Duration, silent int) {
	var sum time.Duration
	n := 0
	for _, d := range h.trips {
		if d == 0 {
			silent++
			continue
		}
		if n == 0 || d < least {
			least = d
		}
		most = max(most, d)
		sum += d
		n++
	}
	if n > 0 {
		mean = sum / time.Duration(n)
	}
	return least, mean, most, silent
}

// sparks draws the last round trips, at most width of them, the newest at the right:
// as high as they are beside the longest of these, × where no answer came.
func sparks(trips []time.Duration, width int) string {
	if len(trips) > width {
		trips = trips[len(trips)-max(width, 0):]
	}
	var most time.Duration
	for _, d := range trips {
		most = max(most, d)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var out []rune
	for _, d := range trips {
		if d == 0 {
			out = append(out, '×')
			continue
		}
		out = append(out, bars[int(d)*(len(bars)-1)/int(most)])
	}
	return string(out)
}
