package wg

import "sync"

// arrivals follows packets to the other end: read from Packets, out of wireguard-go, acknowledged on the link.
type arrivals struct {
	tell func(uint64) // Config.Arrived

	mu    sync.Mutex
	marks []mark // in order
	known uint64 // datagrams that the link has settled
}

// mark says that packet number packet, and all before it, have arrived when the link has settled datagrams.
type mark struct{ packet, datagrams uint64 }

// maxMarks bounds the marks: beyond it the last one is moved, which makes arrivals known later.
const maxMarks = 1024

// sent notes that packets up to a number are in the link, which has taken so many datagrams by then. The link may have
// settled them already.
func (a *arrivals) sent(packet, datagrams uint64) {
	if a.tell == nil {
		return
	}
	a.mu.Lock()
	if len(a.marks) == maxMarks {
		a.marks[maxMarks-1] = mark{packet, datagrams}
	} else {
		a.marks = append(a.marks, mark{packet, datagrams})
	}
	a.mu.Unlock()
	a.report()
}

// settled is told by the link that so many datagrams have arrived.
func (a *arrivals) settled(datagrams uint64) {
	a.mu.Lock()
	a.known = max(a.known, datagrams)
	a.mu.Unlock()
	a.report()
}

// report tells of the last packet that has arrived, and forgets its mark and those before it.
func (a *arrivals) report() {
	a.mu.Lock()
	n := 0
	for n < len(a.marks) && a.marks[n].datagrams <= a.known {
		n++
	}
	if n == 0 {
		a.mu.Unlock()
		return
	}
	packet := a.marks[n-1].packet
	a.marks = append(a.marks[:0], a.marks[n:]...)
	a.mu.Unlock()
	a.tell(packet)
}
