package link

import "time"

// Bounds of a link's window, in bytes. The least keeps a carrier busy that has milliseconds of round trip: what travels one
// datagram at a time wakes every process on the way for each. The most bounds what both ends hold.
const (
	minWindow   = 512 << 10
	firstWindow = 1 << 20
	maxWindow   = 4 << 20
)

// queueTarget is how long data may wait on its way, beyond what an empty way takes.
const queueTarget = 15 * time.Millisecond

// rebaseAfter is how long a window stays at its least before the way itself is taken to have become longer.
const rebaseAfter = 10 * time.Second

// window decides how many bytes may be on their way unacknowledged. It follows the measured delay: a carrier neither
// loses nor marks, so that delay is the only sign of a queue, and every hop's buffers would be filled otherwise.
// Once per round trip the window moves towards the size that makes the delay the wanted one. Unsafe for concurrent use.
type window struct {
	size    int
	base    time.Duration // the least delay seen: that of an empty way
	limited bool          // a sender waited for room in this round
	round   uint64        // sequence number that ends it

	atLeast time.Time     // since when size is minWindow and the delay too long; zero otherwise
	recent  time.Duration // the least delay since then
}

func newWindow() window { return window{size: firstWindow} }

// reset forgets what was measured on another carrier.
func (w *window) reset() { *w = newWindow() }

// acked takes the delay of data whose acknowledgement has come, up to the sequence number seq, when data up to next has
// been sent.
func (w *window) acked(seq, next uint64, delay time.Duration, now time.Time) {
	delay = max(delay, time.Microsecond)
	if w.base == 0 || delay < w.base {
		w.base = delay
	}
	if seq < w.round {
		return
	}
	w.round = next
	wanted := w.base + queueTarget
	// Halfway only: what is measured is the window of a round trip ago.
	factor := (1 + min(max(float64(wanted)/float64(delay), 0.5), 2)) / 2
	if factor > 1 && !w.limited {
		factor = 1 // the sender had less to send than it might
	}
	w.limited = false
	w.size = min(max(int(float64(w.size)*factor), minWindow), maxWindow)
	w.rebase(delay, wanted, now)
}

// rebase believes in a longer way when the smallest window has not shortened the delay.
func (w *window) rebase(delay, wanted time.Duration, now time.Time) {
	switch {
	case w.size > minWindow || delay <= wanted:
		w.atLeast = time.Time{}
	case w.atLeast.IsZero():
		w.atLeast, w.recent = now, delay
	case now.Sub(w.atLeast) < rebaseAfter:
		w.recent = min(w.recent, delay)
	default:
		w.base, w.atLeast = min(w.recent, delay), time.Time{}
	}
}
