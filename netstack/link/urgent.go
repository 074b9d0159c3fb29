package link

import (
	"bytes"
	"fmt"
	"net"
	"syscall"
)

const (
	urgentSlots   = 4
	urgentMaxSize = 255
)

// SendUrgent puts a small datagram, up to 255 bytes, ahead of the data that waits, and never blocks: it is for handshakes,
// which are sent from where nothing may wait. One datagram per slot, 0 to 3, waits for a carrier to
// take it; a newer one takes the place of an older one that is still waiting.
func (l *Link) SendUrgent(slot int, p []byte) error {
	if slot < 0 || slot >= urgentSlots || len(p) == 0 || len(p) > urgentMaxSize {
		return fmt.Errorf("send urgent datagram of %d bytes in slot %d: %w", len(p), slot, syscall.EINVAL)
	}
	if l.ctx.Err() != nil {
		return net.ErrClosed
	}
	l.urgentMu.Lock()
	l.urgent[slot] = bytes.Clone(p)
	l.urgentMu.Unlock()
	if c, _ := l.current(); c != nil {
		c.wake()
	}
	return nil
}

// takeUrgent empties the slots.
func (l *Link) takeUrgent() (taken [urgentSlots][]byte) {
	l.urgentMu.Lock()
	defer l.urgentMu.Unlock()
	taken, l.urgent = l.urgent, taken
	return taken
}

// restoreUrgent puts datagrams back that were not written, unless there are newer ones.
func (l *Link) restoreUrgent(taken [urgentSlots][]byte) {
	l.urgentMu.Lock()
	defer l.urgentMu.Unlock()
	for i, p := range taken {
		if l.urgent[i] == nil {
			l.urgent[i] = p
		}
	}
}
