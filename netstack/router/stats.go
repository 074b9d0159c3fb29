package router

import "sync/atomic"

// reason says why a packet was dropped.
type reason uint8

const (
	reasonMalformed   reason = iota // not an IP packet with whole headers
	reasonOptions                   // IP options or extension headers, from the tunnel
	reasonProtocol                  // neither TCP, UDP nor ICMP
	reasonSource                    // a source address that this side does not have
	reasonDestination               // a destination address that the other side does not have
	reasonScope                     // multicast, broadcast, link-local or no address
	reasonLoopback                  // 127/8 or ::1 where it has no business
	reasonControl                   // the range of the control address, not between the two netstacks
	reasonFragment                  // a later fragment whose first one did not pass, or that overlaps it
	reasonICMP                      // ICMP that is neither echo nor an error about an open flow
	reasonSYN                       // an attempt to open a TCP flow from the tunnel
	reasonUnsolicited               // from the tunnel, not a reply to an open flow
	reasonConflict                  // the other side has the same flow open
	numReasons
)

func (r reason) String() string {
	return [numReasons]string{
		"malformed", "options", "protocol", "source", "destination", "scope", "loopback", "control", "fragment",
		"icmp", "syn", "unsolicited", "conflict",
	}[r]
}

func (s side) String() string { return [numSides]string{"session", "stack", "tunnel", "container"}[s] }

// Stats are exact counts since New.
type Stats struct {
	ToTunnel, ToStack, ToSession, ToContainer uint64
	// Drops counts dropped packets by where they came from and why, as "tunnel/unsolicited"; what never happened is
	// absent. The sides are session, stack, tunnel and container; the reasons malformed, options, protocol, source,
	// destination, scope, loopback, control, fragment, icmp, syn, unsolicited and conflict.
	Drops map[string]uint64
	// Flows is the number of flows in the table now; Opened, Expired and Evicted count over time. Evicted flows were
	// not idle for long enough, but the table was full.
	Flows                    int
	Opened, Expired, Evicted uint64
}

type counters struct {
	verdicts [ToContainer + 1]atomic.Uint64
	drops    [numSides][numReasons]atomic.Uint64
}

// Stats returns a snapshot of the counters.
func (r *Router) Stats() Stats {
	s := Stats{
		ToTunnel:    r.count.verdicts[ToTunnel].Load(),
		ToStack:     r.count.verdicts[ToStack].Load(),
		ToSession:   r.count.verdicts[ToSession].Load(),
		ToContainer: r.count.verdicts[ToContainer].Load(),
		Drops:       make(map[string]uint64),
	}
	for from := range numSides {
		for why := range numReasons {
			if n := r.count.drops[from][why].Load(); n > 0 {
				s.Drops[from.String()+"/"+why.String()] = n
			}
		}
	}
	t := r.table
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(r.now(), len(t.flows))
	s.Flows, s.Opened, s.Expired, s.Evicted = len(t.flows), t.opened, t.expired, t.evicted
	return s
}
