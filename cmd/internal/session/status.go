package session

import (
	"context"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/fairqueue"
)

// Status reports on the session. With measure it asks the agent now, which
// gives the round trip and the agent's own figures; it waits for the answer no
// longer than ctx.
func (s *Session) Status(ctx context.Context, measure bool) Status {
	s = s.now.Load()
	s.mu.Lock()
	past, counted := s.past, s.counted
	out := Status{Session: s.name, State: s.state, Problem: s.problem, Moved: s.moved}
	s.mu.Unlock()
	if out.State == Reconnecting {
		out.Problem = because(out.Problem, s.carriers[fairqueue.Express].lastError())
	}
	out.Target = Target{
		Ref: s.req.Ref, Context: s.target.Context, Namespace: s.target.Namespace, Pod: s.target.Pod,
		Container: s.target.Container, Node: s.target.Node, PodIPs: s.target.PodIPs,
	}
	out.Hook, out.HookNote, out.Since = s.hook, s.note, s.since
	out.Files = s.files.status()
	out.Cloud, out.Metadata = s.target.Cloud, s.req.Metadata
	out.RemoteLocalhost, out.Local, out.LocalNames = s.req.RemoteLocalhost, s.req.Local, s.req.LocalNames
	out.Mirror = s.mirror.status()
	out.Redirects = s.req.Redirects
	out.Publish, out.Ports = s.req.Publish, s.ports.list()
	out.Guard = s.locals.guard.status(s.req.Deny)
	out.Container = s.guests.status()
	if s.helper != nil {
		out.Device = s.helper.Kind()
	}
	out.Traffic = Traffic{Flows: s.fabric.router.Stats().Flows, Drops: s.fabric.drops()}
	if !counted {
		s.tunnelStatus(&out)
	}
	if s.req.Direct && out.Carrier != ProtocolDirect {
		out.NotDirect = s.shortcut.problem()
	}
	out.Redials += past.redials
	out.Traffic.BytesIn += past.bytesIn
	out.Traffic.BytesOut += past.bytesOut
	out.DNS = s.dns.Stats()
	out.Agent = Agent{Container: s.agent.Container, Version: s.info.Version, Reused: s.agent.Reused, Expires: s.info.Expires, Ping: s.info.Ping}
	if measure && out.State != Lost && out.State != Reattaching {
		s.measure(ctx, &out)
	}
	out.Mesh = s.mesh.Load()
	return out
}

// tunnelStatus adds what the tunnel is made of and has carried.
func (s *Session) tunnelStatus(out *Status) {
	for lane, name := range []*string{fairqueue.Express: &out.Carrier, fairqueue.Bulk: &out.BulkCarrier} {
		l := s.tunnel.Stats(fairqueue.Lane(lane))
		if l.Up {
			*name = s.carriers[lane].name()
		}
		out.Redials += l.Redials
		out.Traffic.BytesIn += l.BytesIn
		out.Traffic.BytesOut += l.BytesOut
	}
}

// because adds to problem why the last attempt at a carrier failed, if it did:
// credentials that have expired need the person.
func because(problem *fault.Error, dial error) *fault.Error {
	if problem == nil || dial == nil {
		return problem
	}
	out := *problem
	out.Reason += ": " + fault.From(Explain(dial)).Error()
	out.Hint = fault.From(Explain(dial)).Hint
	return &out
}

// reconnectingPatience is how long an agent without a carrier is waited for.
const reconnectingPatience = 3 * time.Second

// measure asks the agent twice, so that the round trip is that of a connection
// that stands.
func (s *Session) measure(ctx context.Context, out *Status) {
	if out.State == Reconnecting { // so it hardly answers
		short, cancel := context.WithTimeout(ctx, reconnectingPatience)
		defer cancel()
		ctx = short
	}
	if info, err := s.control.info(ctx); err == nil {
		out.Agent.Expires, out.Agent.Ping = info.Expires, info.Ping
	}
	stats, took, err := s.control.stats(ctx)
	if err != nil {
		s.log.Debug("agent does not answer", "err", err)
		return
	}
	out.RoundTrip = max(took, time.Microsecond)
	out.Agent.TCPFlows, out.Agent.Drops, out.Agent.Usage = &stats.TCPFlows, stats.Dropped, stats.Usage
	s.lookAtMesh(ctx)
}
