package link

// turn is a lock that may be held for long: waiting for it can be given up. It is taken in the order of waiting, so
// that a heartbeat gets in between the writes of a busy sender.
type turn chan struct{}

// take waits for the turn and reports false if done is closed instead.
func (t turn) take(done <-chan struct{}) bool {
	select {
	case t <- struct{}{}:
		return true
	default:
	}
	select {
	case t <- struct{}{}:
		return true
	case <-done:
		return false
	}
}

// pass gives the turn to the next.
func (t turn) pass() { <-t }
