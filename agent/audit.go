package agent

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/flow"
)

// maxDeniedLines bounds the log lines about refused destinations that one
// session can cause; the counters go on.
const maxDeniedLines = 64

// record is the part of the agent's log that says what one session did. Each
// line has the session's id and the client's public key, which is also in the
// container's arguments, so in the API server's audit log beside the user.
type record struct {
	log     *slog.Logger
	started time.Time
	before  wire.Stats // the agent's counters at the start
	ended   sync.Once

	mu     sync.Mutex
	denied map[destination]bool // guarded by mu; at most maxDeniedLines
}

type destination struct {
	proto flow.Proto
	addr  netip.AddrPort
}

func (a *Agent) newRecord(id [16]byte) *record {
	return &record{
		log:     a.log.With("session", fmt.Sprintf("%x", id[:4]), "peer", a.cfg.ClientKey.String()),
		started: time.Now(),
		before:  a.counters.snapshot(),
		denied:  make(map[destination]bool),
	}
}

// deny counts a flow that is refused and logs its destination once.
func (s *session) deny(f flow.Flow, reason string) {
	s.agent.counters.deny(reason)
	to := destination{f.Proto, f.Dst}
	if f.Proto == flow.ICMP || f.Proto == flow.ICMPv6 {
		to.addr = netip.AddrPortFrom(f.Dst.Addr(), 0) // the rest is the program's identifier
	}
	r := s.record
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.denied[to] || len(r.denied) == maxDeniedLines:
		return
	case len(r.denied) == maxDeniedLines-1:
		r.log.Warn("destinations denied", "reason", "too many to log them all, they are counted")
	default:
		r.log.Warn("destination denied", "proto", to.proto.String(), "src", f.Src.String(), "dst", to.addr.String(), "reason", reason)
	}
	r.denied[to] = true
}

// end logs, once, that the session is over, and what it did.
func (s *session) end(reason string) {
	r := s.record
	r.ended.Do(func() {
		now, stats := s.agent.counters.snapshot(), s.tunnel.Stats(fairqueue.Express)
		r.log.Info(wire.LogSessionEnds, "reason", reason, "dur", time.Since(r.started).Round(time.Millisecond).String(),
			"last_heard", stats.LastReceive.UTC().Format(time.RFC3339), "bytes_in", stats.BytesIn, "bytes_out", stats.BytesOut,
			"tcp", now.TCPOpened-r.before.TCPOpened, "tcp_failed", now.TCPFailed-r.before.TCPFailed,
			"udp", now.UDPSent-r.before.UDPSent, "echoes", now.Echoes-r.before.Echoes,
			"denied", total(now.Denied)-total(r.before.Denied))
	})
}

// introduced logs, once, who the client says it is.
func (s *session) introduced(next http.Handler) http.Handler {
	var once sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who := wire.ClientName(r.Header.Get(wire.HeaderClient)); who != "" {
			once.Do(func() { s.record.log.Info(wire.LogClient, "who", who) })
		}
		next.ServeHTTP(w, r)
	})
}

func total(counts map[string]uint64) uint64 {
	var sum uint64
	for _, n := range counts {
		sum += n
	}
	return sum
}
