package agent

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/borrownet/borrownet/agent/wire"
)

// counters are the agent's, over all sessions. All are exact.
type counters struct {
	tcpFlows, udpSockets                               atomic.Int64
	tcpOpened, tcpFailed, udpSent, udpReceived, echoes atomic.Uint64

	mu      sync.Mutex
	denied  map[string]uint64 // guarded by mu
	dropped map[string]uint64 // guarded by mu
}

func newCounters() *counters {
	return &counters{denied: make(map[string]uint64), dropped: make(map[string]uint64)}
}

func (c *counters) deny(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied[reason]++
}

func (c *counters) drop(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped[reason]++
}

func (c *counters) snapshot() wire.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wire.Stats{
		TCPFlows:    c.tcpFlows.Load(),
		TCPOpened:   c.tcpOpened.Load(),
		TCPFailed:   c.tcpFailed.Load(),
		UDPSockets:  c.udpSockets.Load(),
		UDPSent:     c.udpSent.Load(),
		UDPReceived: c.udpReceived.Load(),
		Echoes:      c.echoes.Load(),
		Denied:      maps.Clone(c.denied),
		Dropped:     maps.Clone(c.dropped),
	}
}
