package link

import (
	"runtime"
	"testing"
	"time"
)

// checkLeaks fails the test if it ends with more goroutines than it began with. Tests in a synctest bubble need
// none of this: a bubble that does not end by itself fails.
func checkLeaks(t testing.TB) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		var now int
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if now = runtime.NumGoroutine(); now <= before {
				return
			}
		}
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before the test:\n%s", now, before, buf[:runtime.Stack(buf, true)])
	})
}
