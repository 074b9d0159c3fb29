package wg

import (
	"testing"
	"testing/synctest"
	"time"
)

// waits starts w.wait; its result waits in the channel.
func waits(w *window[int]) <-chan bool {
	ch := make(chan bool, 1)
	go func() { ch <- w.wait() }()
	return ch
}

func checkWaiting(t *testing.T, ch <-chan bool, want bool) {
	t.Helper()
	synctest.Wait()
	select {
	case ok := <-ch:
		if want {
			t.Fatalf("wait returned %v", ok)
		}
	default:
		if !want {
			t.Fatal("still waiting")
		}
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow[int](time.Second)
		for i := range 8 { // 8 × 64 KiB fill it
			if !w.wait() {
				t.Fatal("wait on an open window = false")
			}
			w.enter(i, windowBytes/8, 0)
		}
		ch := waits(w)
		checkWaiting(t, ch, true)
		w.begin()
		w.end(99) // not inside, a keepalive
		checkWaiting(t, ch, true)
		w.begin()
		w.end(2) // 0 and 1 were dropped
		checkWaiting(t, ch, false)
		if w.bytes != 5*windowBytes/8 || len(w.inside) != 5 {
			t.Errorf("%d packets with %d bytes inside, want 5", len(w.inside), w.bytes)
		}
		for i := range windowPackets { // many small ones fill it, too
			w.enter(100+i, 1, 0)
		}
		ch = waits(w)
		checkWaiting(t, ch, true)
		w.close()
		w.close()
		if <-ch || w.wait() {
			t.Error("wait on a closed window = true")
		}
	})
}

func TestWindowForgetsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow[int](time.Second)
		w.enter(1, windowBytes, 0)
		ch := waits(w)
		w.begin() // a send that takes long is no drop
		time.Sleep(time.Minute)
		checkWaiting(t, ch, true)
		w.end(99)
		start := time.Now()
		if !<-ch {
			t.Error("wait = false")
		}
		if d := time.Since(start); d < time.Second || d > 2*time.Second {
			t.Errorf("dropped packets were forgotten after %v", d)
		}
		if w.bytes != 0 || len(w.inside) != 0 {
			t.Errorf("%d packets with %d bytes inside", len(w.inside), w.bytes)
		}
	})
}
