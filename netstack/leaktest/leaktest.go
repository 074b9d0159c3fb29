// Package leaktest finds goroutines that a test leaves running.
package leaktest

import (
	"runtime"
	"testing"
	"time"
)

// patience is how long goroutines may take to end after the test's cleanups.
const patience = 30 * time.Second

// Check fails the test if more goroutines run after its cleanups than now. Call it
// first. Tests in a synctest bubble need none of this: a bubble that does not end by
// itself fails.
func Check(t testing.TB) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		limit := time.After(patience)
		again := time.NewTicker(time.Millisecond)
		defer again.Stop()
		for runtime.NumGoroutine() > before {
			select {
			case <-again.C:
			case <-limit:
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
}
