// Package reclaim gives memory back to the system after a burst of work.
//
// Go keeps what a burst has left for the next one: what is garbage until there is as much again, and pooled buffers until
// the second collection. A process that rests collects nothing, so a transfer of a minute would count in a pod's limit, or
// on a laptop, for hours.
package reclaim

import (
	"context"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	every = 2 * time.Second // between two looks

	quiet = every / 20             // of processor time: who uses less between two looks, twice, rests
	burst = 500 * time.Millisecond // of processor time: so much work must have been done since memory was given back last
)

// Run gives memory back whenever the process rests after a burst, until ctx ends.
func Run(ctx context.Context) {
	look := time.NewTicker(every)
	defer look.Stop()
	for at := (rest{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if at.due(used()) {
			runtime.GC() // pooled buffers survive the first collection
			debug.FreeOSMemory()
			at.given(used())
		}
	}
}

// used returns the processor time that the process has used.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot fail: getrusage(2)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rest finds out when a process rests after work.
type rest struct {
	last  time.Duration // processor time used, at the last look
	freed time.Duration // the same when memory was given back last
	calm  bool          // the last look has found little; on a busy machine that may be all that could be had
}

// due reports whether memory is to be given back, of a process that has used so much processor time.
func (r *rest) due(used time.Duration) bool {
	little := used-r.last < quiet
	resting := little && r.calm
	r.last, r.calm = used, little
	return resting && used-r.freed >= burst
}

// given notes that memory was given back, which has taken time itself.
func (r *rest) given(used time.Duration) { r.last, r.freed = used, used }
