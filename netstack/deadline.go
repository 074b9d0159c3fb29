package netstack

import (
	"sync"
	"time"
)

// A deadline is a time after which operations of one direction of a conn end.
// The zero value is no deadline.
type deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	passed  chan struct{} // closed when the deadline has passed; made on demand
	expired bool          // passed is closed
}

// wait returns a channel that is closed when the deadline as set now passes.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chanLocked()
}

func (d *deadline) chanLocked() chan struct{} {
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

// set moves the deadline to t; the zero t means never. Waiting operations
// heed the new time.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		// A timer that has fired finds out in expire that it is another's turn.
		d.timer.Stop()
		d.timer = nil
	}
	left := time.Until(t)
	if !t.IsZero() && left <= 0 {
		d.expireLocked()
		return
	}
	if d.expired {
		d.passed, d.expired = nil, false
	}
	if !t.IsZero() {
		var timer *time.Timer
		timer = time.AfterFunc(left, func() { d.expire(&timer) })
		d.timer = timer
	}
}

// expire is the end of the timer at t, unless set has replaced it.
func (d *deadline) expire(t **time.Timer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer == *t {
		d.expireLocked()
	}
}

func (d *deadline) expireLocked() {
	if d.expired {
		return
	}
	close(d.chanLocked())
	d.expired = true
}

// stop releases the deadline's timer. The deadline must not be set again.
func (d *deadline) stop() { d.set(time.Time{}) }
