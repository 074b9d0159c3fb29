package replay

import (
	"maps"
	"sync/atomic"

	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/reassembly"
)

// A fate is what becomes of a request, or of a flow that is no HTTP/1.
type fate uint8

const (
	taken     fate = iota // still on its way
	delivered             // the local program got all of it
	probe                 // a health probe, left out
	filtered              // left out by a filter
	sampled               // left out by sampling
	capped                // left out by the rate cap
	refused               // the local program did not take the connection
	broken                // the local program ended the connection, perhaps before it had all of it
	slow                  // no room: the local program is too slow
	cut                   // bytes are missing in the capture, or it ended early
	numFates
)

// String returns what a person is told.
func (f fate) String() string {
	switch f {
	case delivered:
		return "delivered"
	case probe:
		return "probe"
	case filtered:
		return "filtered"
	case sampled:
		return "sampled out"
	case capped:
		return "capped"
	case refused:
		return "refused"
	case broken:
		return "broken"
	case slow:
		return "slow"
	case cut:
		return "cut"
	}
	return "under way"
}

// Outcomes counts what became of requests, or of flows, exactly: once nothing is
// under way they add up to Seen.
type Outcomes struct {
	Seen      uint64 `json:"seen"`
	Delivered uint64 `json:"delivered"`
	Probes    uint64 `json:"probes,omitempty"`
	Filtered  uint64 `json:"filtered,omitempty"`
	Sampled   uint64 `json:"sampledOut,omitempty"`
	Capped    uint64 `json:"capped,omitempty"`
	Refused   uint64 `json:"refused,omitempty"`
	Broken    uint64 `json:"broken,omitempty"`
	Slow      uint64 `json:"slow,omitempty"`
	Cut       uint64 `json:"cut,omitempty"`
}

// outcomes is where Outcomes are counted.
type outcomes struct {
	seen atomic.Uint64
	of   [numFates]atomic.Uint64
}

func (o *outcomes) count(f fate) { o.of[f].Add(1) }

func (o *outcomes) load() Outcomes {
	n := func(f fate) uint64 { return o.of[f].Load() }
	return Outcomes{
		Seen: o.seen.Load(), Delivered: n(delivered), Probes: n(probe), Filtered: n(filtered), Sampled: n(sampled), Capped: n(capped),
		Refused: n(refused), Broken: n(broken), Slow: n(slow), Cut: n(cut),
	}
}

// Stats counts, exactly, what a Replayer has done.
type Stats struct {
	reassembly.Stats
	// Opened are flows whose beginning was captured, Before those that were open
	// before, or whose beginning is missing: what they carried before the first packet
	// that was captured is in no other count, unless the capture has given them up.
	Opened uint64 `json:"opened"`
	Before uint64 `json:"before,omitempty"`
	// Joined counts how often an HTTP/1 flow was entered, or entered again, at the
	// beginning of a request.
	Joined uint64 `json:"joined,omitempty"`
	// Waiting are the flows, by protocol, of which nothing can be told now: HTTP/1
	// ones until their next request, others until they reopen.
	Waiting map[string]int64 `json:"waiting,omitempty"`
	// Skipped counts the bytes of such flows, and those of HTTP/1 that are no whole head.
	Skipped uint64 `json:"skippedBytes,omitempty"`
	// RequestBytes are those of HTTP/1 requests, whatever became of these. With Skipped,
	// GapBytes and LostBytes they are all that clients of HTTP/1 have sent, each byte
	// once, from the first packet of each flow that was captured.
	RequestBytes uint64 `json:"requestBytes"`
	// TLS counts flows that nobody can read.
	TLS uint64 `json:"tls,omitempty"`
	// Requests are those of HTTP, Streams the flows of all other protocols that
	// were captured from their beginning.
	Requests Outcomes `json:"requests"`
	Streams  Outcomes `json:"streams"`
	// Unanswered counts delivered requests whose connection ended without an answer.
	Unanswered uint64 `json:"unanswered,omitempty"`
	// Repeated counts requests that were sent once more because the local program
	// had closed the connection between two requests.
	Repeated uint64 `json:"repeated,omitempty"`
	// Bytes were delivered; Discarded are those of the local program's answers.
	Bytes     uint64 `json:"bytes"`
	Discarded uint64 `json:"discardedBytes"`
	// Gaps and GapBytes count what is missing in flows, by reason.
	Gaps     map[string]uint64 `json:"gaps,omitempty"`
	GapBytes map[string]uint64 `json:"gapBytes,omitempty"`
	// LostPackets and LostBytes are of flows that the capture has given up, bytes that
	// were sent again counted once; KernelDrops are packets of no known flow, which the
	// kernel dropped as a rule.
	LostPackets uint64 `json:"lostPackets,omitempty"`
	LostBytes   uint64 `json:"lostBytes,omitempty"`
	KernelDrops uint64 `json:"kernelDrops,omitempty"`
	// Problem is why the local program could not be reached the last time.
	Problem string `json:"problem,omitempty"`
	// Held is what waits for the local program, in bytes.
	Held int64 `json:"heldBytes,omitempty"`
}

const numReasons = int(reassembly.Reused) + 1

// counters is where Stats are counted.
type counters struct {
	opened, before, joined, skipped, tls, unanswered, repeated, bytes, discarded, requestBytes atomic.Uint64
	lostPackets, lostBytes, kernelDrops                                                        atomic.Uint64
	requests, streams                                                                          outcomes
	gaps, gapBytes                                                                             [numReasons]atomic.Uint64
	waiting                                                                                    [http1.NumProtocols]atomic.Int64
}

func (c *counters) load() Stats {
	s := Stats{
		Opened: c.opened.Load(), Before: c.before.Load(), Joined: c.joined.Load(), Skipped: c.skipped.Load(), TLS: c.tls.Load(),
		Requests: c.requests.load(), Streams: c.streams.load(), Unanswered: c.unanswered.Load(), Repeated: c.repeated.Load(), Bytes: c.bytes.Load(), Discarded: c.discarded.Load(),
		RequestBytes: c.requestBytes.Load(), LostPackets: c.lostPackets.Load(), LostBytes: c.lostBytes.Load(), KernelDrops: c.kernelDrops.Load(),
	}
	for i := range c.gaps {
		if n := c.gaps[i].Load(); n > 0 {
			if s.Gaps == nil {
				s.Gaps, s.GapBytes = map[string]uint64{}, map[string]uint64{}
			}
			s.Gaps[reassembly.Reason(i).String()] = n
			s.GapBytes[reassembly.Reason(i).String()] = c.gapBytes[i].Load()
		}
	}
	for i := range c.waiting {
		if n := c.waiting[i].Load(); n > 0 {
			if s.Waiting == nil {
				s.Waiting = map[string]int64{}
			}
			s.Waiting[http1.Protocol(i).String()] = n
		}
	}
	return s
}

// Add returns the counts of two Replayers, the later one being t.
func (s Stats) Add(t Stats) Stats {
	s.Packets += t.Packets
	s.Ignored += t.Ignored
	s.Stats.Refused += t.Stats.Refused
	s.Flows += t.Flows
	s.Opened += t.Opened
	s.Before += t.Before
	s.Joined += t.Joined
	s.Waiting = addMaps(s.Waiting, t.Waiting)
	s.Skipped += t.Skipped
	s.RequestBytes += t.RequestBytes
	s.TLS += t.TLS
	s.Requests = s.Requests.add(t.Requests)
	s.Streams = s.Streams.add(t.Streams)
	s.Unanswered += t.Unanswered
	s.Repeated += t.Repeated
	s.Bytes += t.Bytes
	s.Discarded += t.Discarded
	s.Gaps = addMaps(s.Gaps, t.Gaps)
	s.GapBytes = addMaps(s.GapBytes, t.GapBytes)
	s.LostPackets += t.LostPackets
	s.LostBytes += t.LostBytes
	s.KernelDrops += t.KernelDrops
	s.Problem = t.Problem
	s.Held += t.Held
	return s
}

func (o Outcomes) add(p Outcomes) Outcomes {
	o.Seen += p.Seen
	o.Delivered += p.Delivered
	o.Probes += p.Probes
	o.Filtered += p.Filtered
	o.Sampled += p.Sampled
	o.Capped += p.Capped
	o.Refused += p.Refused
	o.Broken += p.Broken
	o.Slow += p.Slow
	o.Cut += p.Cut
	return o
}

// addMaps returns a map of the sums; nil if both are empty.
func addMaps[N uint64 | int64](a, b map[string]N) map[string]N {
	if len(a)+len(b) == 0 {
		return nil
	}
	out := maps.Clone(a)
	if out == nil {
		out = map[string]N{}
	}
	for k, n := range b {
		out[k] += n
	}
	return out
}
