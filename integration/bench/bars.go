package main

// bar is a row's unit and what borrownet must reach in it.
type bar struct {
	id, unit, text string
	held           func(Row) bool // nil = shown without a bar
}

func below(limit float64) func(Row) bool { return func(r Row) bool { return r.Value < limit } }

func atLeast(limit float64) func(Row) bool { return func(r Row) bool { return r.Value >= limit } }

// none is of rows that count what must not happen.
func none(r Row) bool { return r.Max == 0 }

func spdyAtMost(q float64) func(Row) bool {
	return func(r Row) bool { return r.Ratio != nil && *r.Ratio <= q }
}

func spdyAtLeast(q float64) func(Row) bool {
	return func(r Row) bool { return r.Ratio != nil && *r.Ratio >= q }
}

// throughput is at least that of the WebSocket that kubectl uses, and not far
// from SPDY, which costs half of it.
func throughput(r Row) bool {
	return r.RatioWS != nil && *r.RatioWS >= 1 && r.Ratio != nil && *r.Ratio >= 0.65
}

const throughputText = "≥ 1.0 × ws, ≥ 0.65 × spdy"

var bars = []bar{
	{"up.first", "s", "< 3", below(3)},
	{"up.second", "s", "< 1", below(1)},
	{"link.up.1", "MB/s", throughputText, throughput},
	{"link.down.1", "MB/s", throughputText, throughput},
	{"link.up.16", "MB/s", throughputText, throughput},
	{"link.down.16", "MB/s", throughputText, throughput},
	{"link.rtt.idle.p50", "ms", "≤ 1.4 × spdy", spdyAtMost(1.4)},
	{"link.rtt.loaded.p50", "ms", "≤ 0.12 × spdy", spdyAtMost(0.12)},
	{"link.rtt.loaded.p99", "ms", "≤ 0.25 × spdy", spdyAtMost(0.25)},
	{"link.rtt.loaded.bulk", "MB/s", "≥ 0.5 × spdy", spdyAtLeast(0.5)},
	{"link.connect.p50", "ms", "≤ 0.8 × spdy", spdyAtMost(0.8)},
	// As those of link, with up --direct.
	{"direct.up.1", "MB/s", "", nil},
	{"direct.down.1", "MB/s", "", nil},
	{"direct.up.16", "MB/s", "", nil},
	{"direct.down.16", "MB/s", "", nil},
	{"direct.rtt.idle.p50", "ms", "", nil},
	{"direct.rtt.loaded.p50", "ms", "", nil},
	{"direct.rtt.loaded.p99", "ms", "", nil},
	{"direct.rtt.loaded.bulk", "MB/s", "", nil},
	{"direct.connect.p50", "ms", "", nil},
	{"link.up.1.0ms", "MB/s", "", nil},
	{"link.down.1.0ms", "MB/s", "", nil},
	{"link.up.16.0ms", "MB/s", "", nil},
	{"link.down.16.0ms", "MB/s", "", nil},
	{"link.rtt.0ms", "ms", "", nil},
	{"link.up.1.20ms", "MB/s", delayedText, nil},
	{"link.down.1.20ms", "MB/s", delayedText, nil},
	{"link.up.16.20ms", "MB/s", delayedText, nil},
	{"link.down.16.20ms", "MB/s", delayedText, nil},
	{"link.rtt.20ms", "ms", "", nil},
	{"link.up.1.60ms", "MB/s", delayedText, nil},
	{"link.down.1.60ms", "MB/s", delayedText, nil},
	{"link.up.16.60ms", "MB/s", delayedText, nil},
	{"link.down.16.60ms", "MB/s", delayedText, nil},
	{"link.rtt.60ms", "ms", "", nil},
	{"link.carrier-kill.flows-lost", "flows", "0 of 50", none},
	{"link.carrier-kill.flows-wrong", "flows", "0 of 50", none},
	{"link.carrier-kill.gap.p50", "s", "", nil},
	{"link.carrier-kill.gap.p99", "s", "≤ 2", func(r Row) bool { return r.Value <= 2 }},
	{"link.cpu", "core-ms/MB", "≤ 6", func(r Row) bool { return r.Value <= 6 }},
	{"link.cpu.16", "core-ms/MB", "", nil},
	{"link.cpu.trip", "core-ms", "", nil},
	{"link.cpu.connect", "core-ms", "", nil},
	{"link.waits.trip", "waits", "", nil},
	{"hook.socket.p50", "µs", "< 40", below(40)},
	{"hook.listen.p50", "µs", "< 1000", below(1000)},
	{"hook.untrapped", "ns", "< 40", below(40)},
	{"hook.run-true", "ms", "< 60", below(60)},
	{"dns.cached.p50", "µs", "< 100", below(100)},
	{"dns.uncached.p50", "µs", "", nil},
	{"dns.echo.p50", "µs", "", nil},
	{"dns.uncached.overhead", "µs", "≤ 300", below(300)}, // beyond the echo of the same bytes from another pod, CoreDNS's own time included
	{"dns.qps", "queries/s", "≥ 20000", func(r Row) bool { return r.Value >= 20000 }},
	{"dns.lost", "queries", "0", none},
	{"mem.daemon.idle", "MiB", "< 60", below(60)},
	{"live.idle.p50", "%", "within ± 10", nil}, // beside a session, relative to none
	{"live.idle.p99", "%", "within ± 25", nil},
	{"live.moving.p50", "%", "< 10", nil}, // beside one that moves data, relative to kubectl port-forward and a relay
	{"live.moving.p99", "%", "< 25", nil},
	{"live.failed", "requests", "none", none},
	{"live.moved", "MB/s", "≥ 19", func(r Row) bool { return r.Min >= 19 }},
	{"live.latency.p50", "ms", "", nil},
	{"live.latency.p99", "ms", "", nil},
	{"mirror.delivered", "%", "100", func(r Row) bool { return r.Min == 100 }},
	{"mirror.wrong", "requests", "none", none},  // with other bytes, or twice
	{"mirror.silent", "requests", "none", none}, // missing while no counter says so
	{"mirror.upload.rate", "MB/s", "", nil},
	{"mirror.upload.delivered", "%", "", nil},
	{"mirror.upload.wrong", "requests", "none", none},
	{"mirror.upload.silent", "requests", "none", none},
	{"mirror.upload.failed", "requests", "none", none},
	{"mirror.live.p50", "%", "within ± 10", nil},
	{"mirror.live.p99", "%", "within ± 25", nil},
	{"mirror.live.failed", "requests", "none", none},
	{"mirror.live.latency.p50", "ms", "", nil},
	{"mirror.live.latency.p99", "ms", "", nil},
	{"move.rollout", "s", "≤ 5", func(r Row) bool { return r.Value <= 5 }},
	{"move.told", "s", "≤ 1", func(r Row) bool { return r.Value <= 1 }}, // from when kubectl is started
	{"move.delete", "s", "", nil},                                       // with the time that the next pod needs to start
	// Of a container in a session, relative to a program of borrownet run in the same one.
	{"container.up.1", "% of run", "≥ 90", atLeast(90)},
	{"container.down.1", "% of run", "≥ 90", atLeast(90)},
	{"container.up.16", "% of run", "≥ 90", atLeast(90)},
	{"container.down.16", "% of run", "≥ 90", atLeast(90)},
	{"container.rtt", "% of run", "", nil},
	{"container.up.1.speed", "MB/s", "", nil},
	{"container.down.1.speed", "MB/s", "", nil},
	{"container.up.16.speed", "MB/s", "", nil},
	{"container.down.16.speed", "MB/s", "", nil},
	{"container.rtt.time", "ms", "", nil},
	// Of many developers with many sessions each; see many.go.
	{"many.sessions", "sessions", "", nil},
	{"many.unready", "sessions", "none", none},
	{"many.up", "s", "", nil}, // of one developer's sessions
	{"many.down", "s", "", nil},
	{"many.connections", "per session", "≤ 3", func(r Row) bool { return r.Value <= 3 }},
	{"many.portforwards", "per session", "≤ 2", func(r Row) bool { return r.Value <= 2 }},
	{"many.watches", "per session", "none", func(r Row) bool { return r.Value <= 0 }},
	{"many.requests", "per second, of all", "", nil},
	{"many.server.before", "MiB", "", nil},
	{"many.server", "MiB", "", nil},
	{"many.server.session", "KiB", "", nil},
	{"many.daemon", "MiB per session", "< 10", below(10)},
	{"many.helper", "MiB", "", nil},
	{"many.agent", "MiB", "< 64", below(64)},
}

// defects are the rows whose bars no machine excuses, however busy it is: a bench that does
// not hold them fails.
var defects = []string{"mirror.wrong", "mirror.upload.wrong"}

// noise has the rows of paired differences, in percent, and how far from nothing their
// medians may be. Whether such a row is held is judged with its control's.
var noise = map[string]allowance{
	"live.idle.p50": {percent: 10}, "live.idle.p99": {percent: 25},
	"live.moving.p50": {percent: 10, orBetter: true}, "live.moving.p99": {percent: 25, orBetter: true},
	"mirror.live.p50": {percent: 10}, "mirror.live.p99": {percent: 25},
}
