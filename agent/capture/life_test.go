package capture

import (
	"math/rand/v2"
	"testing"

	"github.com/borrownet/borrownet/netstack/flow"
)

// TestLostBytes: of a flow that is lost each byte that its client has sent, and that nobody has got, is counted once.
func TestLostBytes(t *testing.T) {
	const wraps = 1<<32 - 1500
	syn, data, reset, consent, fin := uint8(flow.SYN), uint8(flow.ACK), uint8(flow.RST), uint8(flow.SYN|flow.ACK), uint8(flow.FIN|flow.ACK)
	for _, tt := range []struct {
		name        string
		taken, lost []segment // before there is no more room, and then; an ack is the server's
		want        uint64
	}{
		{"each-once", []segment{{flags: syn, seq: 99}},
			[]segment{{flags: data, seq: 100, payload: 1000}, {flags: data, seq: 1100, payload: 500}}, 1500},
		{"sent-again", []segment{{flags: syn, seq: 99}},
			[]segment{{flags: data, seq: 100, payload: 1000}, {flags: data, seq: 100, payload: 1000}, {flags: data, seq: 1100, payload: 1}, {flags: data, seq: 600, payload: 500}}, 1001},
		{"sent-again-after-it-was-taken", []segment{{flags: syn, seq: 99}, {flags: data, seq: 100, payload: 1000}},
			[]segment{{flags: data, seq: 100, payload: 1000}, {flags: data, seq: 600, payload: 1000}}, 500},
		{"overtaken", []segment{{flags: syn, seq: 99}},
			[]segment{{flags: data, seq: 1100, payload: 1000}, {flags: data, seq: 100, payload: 1000}}, 2000},
		{"wraps", []segment{{flags: syn, seq: wraps - 1}, {flags: data, seq: wraps, payload: 1000}},
			[]segment{{flags: data, seq: wraps + 1000, payload: 1000}, {flags: data, seq: wraps, payload: 1000}, {flags: data, seq: 500, payload: 1000}}, 2000},
		{"begins-at-the-last-number", []segment{{flags: syn, seq: 1<<32 - 1}},
			[]segment{{flags: data, seq: 0, payload: 10}, {flags: data, seq: 0, payload: 10}}, 10},
		{"keep-alive-probes", []segment{{flags: syn, seq: 99}, {flags: data, seq: 100, payload: 10}},
			[]segment{{flags: data, seq: 109}, {flags: data, seq: 109, payload: 1}, {flags: data, seq: 110, payload: 5}, {flags: data, seq: 114, payload: 1}}, 5},
		{"probes-of-a-closed-window", []segment{{flags: syn, seq: 99}},
			[]segment{{flags: data, seq: 100, payload: 1}, {flags: data, seq: 100, payload: 1}, {flags: data, seq: 100, payload: 1000}}, 1000},
		{"missing-for-the-kernel", []segment{{flags: syn, seq: 99}},
			[]segment{{flags: data, seq: 1100, payload: 1000}, {flags: data, seq: 3100}}, 3000},
		{"missing-for-the-kernel-and-acknowledged", []segment{{flags: syn, seq: 99}, {flags: consent, ack: 100}},
			[]segment{{flags: data, ack: 1100}, {flags: data, seq: 100, payload: 1000}, {flags: data, seq: 1100, payload: 10}}, 1010},
		{"known-to-be-missing-by-what-was-taken", []segment{{flags: syn, seq: 99}, {flags: consent, ack: 100}, {flags: data, ack: 1100}},
			[]segment{{flags: data, seq: 1100, payload: 10}}, 10},
		{"acknowledged-before-it-consents", []segment{{flags: syn, seq: 99}, {flags: data, ack: 5000}},
			[]segment{{flags: data, ack: 5000}, {flags: data, seq: 100, payload: 10}}, 10},
		{"behind-a-fin", []segment{{flags: syn, seq: 99}, {flags: consent, ack: 100}},
			[]segment{{flags: data, seq: 100, payload: 10}, {flags: fin, seq: 110, payload: 5}, {flags: fin, ack: 116}, {flags: data, seq: 116}}, 15},
		{"with-its-syn", nil, []segment{{flags: syn, seq: 99, payload: 10}, {flags: syn, seq: 99, payload: 10}, {flags: data, seq: 110, payload: 5}}, 15},
		{"first-seen-in-the-middle", []segment{{flags: data, seq: 5000, payload: 10}},
			[]segment{{flags: data, seq: 4000, payload: 100}, {flags: data, seq: 5010, payload: 10}}, 10},
		{"first-seen-in-the-middle-and-lost", nil,
			[]segment{{flags: data, seq: 5000, payload: 10}, {flags: data, seq: 5000, payload: 10}, {flags: data, seq: 5010, payload: 10}}, 20},
		{"only-the-servers-consent", []segment{{flags: consent, ack: 100}},
			[]segment{{flags: data, seq: 300, payload: 100}}, 300},
		{"consent-to-another-connection", []segment{{flags: data, seq: 1 << 20, payload: 10}, {flags: consent, ack: 100}},
			[]segment{{flags: data, seq: 100, payload: 100}}, 100},
		{"another-one-whose-beginning-is-missing",
			[]segment{{flags: syn, seq: 99}, {flags: consent, ack: 100}, {flags: fin, seq: 100, payload: 10}, {flags: fin, ack: 111}, {flags: data, seq: 111}},
			[]segment{{flags: data, seq: 5000, payload: 100}, {flags: data, seq: 5000, payload: 200}}, 200},
		{"another-one-while-only-the-client-had-ended", []segment{{flags: syn, seq: 99}, {flags: fin, seq: 100, payload: 10}},
			[]segment{{flags: data, seq: 5000}, {flags: data, seq: 5000, payload: 100}}, 100},
		{"sent-again-behind-its-end", []segment{{flags: syn, seq: 99}, {flags: fin, seq: 100, payload: 10}},
			[]segment{{flags: fin, seq: 100, payload: 10}, {flags: data, seq: 110, payload: 1}, {flags: reset, seq: 5000, payload: 9}}, 0},
		{"a-reset-of-any-number", []segment{{flags: syn, seq: 99}},
			[]segment{{flags: data, seq: 100, payload: 10}, {flags: reset, seq: 1 << 20}}, 10},
		{"farther-than-any-window", []segment{{flags: syn, seq: 99}},
			[]segment{{flags: data, seq: 100, payload: 10}, {flags: data, seq: 1<<31 + 99, payload: 10}, {flags: data, seq: 110, payload: 10}}, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeeder(4 * (1000 + 40 + overhead))
			play := func(steps []segment) {
				for _, s := range steps {
					if s.ack != 0 {
						f.put(port(pod4, 9090), port(client4, 2), s)
					} else {
						f.put(port(client4, 2), port(pod4, 9090), s)
					}
				}
			}
			f.client(1, flow.ACK, 1) // it is older
			play(tt.taken)
			if l := f.drain().lost[2]; l.Packets != 0 {
				t.Fatalf("lost %+v while there is room", l)
			}
			for range 4 {
				f.client(1, flow.ACK, 1000)
			}
			play(tt.lost)
			if got := f.drain().lost[2].Bytes; got != tt.want {
				t.Errorf("%d bytes are told of, want %d", got, tt.want)
			}
			if got := f.q.Stats().LostBytes; got != tt.want {
				t.Errorf("%d bytes are counted, want %d", got, tt.want)
			}
		})
	}
}

// What is queued when a flow is given up is lost, once, and what was taken before is not.
func TestLostBytesOfAQueue(t *testing.T) {
	f := newFeeder(4 * (1000 + 40 + overhead))
	again := func(seq uint32) {
		f.put(port(client4, 2), port(pod4, 9090), segment{flags: flow.ACK, seq: seq, payload: 1000})
	}
	f.client(1, flow.ACK, 1)
	f.client(2, flow.SYN, 0)
	f.client(2, flow.ACK, 1000)
	f.drain()
	f.client(2, flow.ACK, 1000)
	f.client(2, flow.ACK, 1000)
	again(1)    // was taken
	again(1001) // is queued
	f.client(1, flow.ACK, 1000)
	if got := f.drain(); got.lost[2].Packets != 4 || got.lost[2].Bytes != 2000 || got.bytes[1] != 1000 {
		t.Errorf("lost %+v, want 4 packets, 2000 bytes", got.lost[2])
	}
}

// A lost flow does not go on with what its client sends again, nor behind what the kernel dropped.
func TestQueueResumesAtNothingElse(t *testing.T) {
	for _, tt := range []struct {
		name    string
		seq     uint32
		payload int
		resumes bool
	}{
		{"next", 3001, 10, true},
		{"sent-again", 2001, 1000, false},
		{"sent-again-and-more", 2001, 1010, false},
		{"keep-alive-probe", 3000, 1, false},
		{"behind-a-hole", 3101, 10, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeeder(4 * (1000 + 40 + overhead))
			f.client(1, flow.ACK, 1)
			f.client(2, flow.SYN, 0)
			for range 3 {
				f.client(2, flow.ACK, 1000)
			}
			f.client(1, flow.ACK, 1000)
			f.drain()
			f.server(2, flow.ACK, 300)
			f.put(port(client4, 2), port(pod4, 9090), segment{flags: flow.ACK, seq: tt.seq, payload: tt.payload})
			if got := f.drain(); (got.packets[2] == 1) != tt.resumes {
				t.Errorf("%d packets pass, lost %+v", got.packets[2], got.lost[2])
			}
		})
	}
}

// A probe after the answer does not keep a lost flow from going on.
func TestQueueResumesBehindAProbe(t *testing.T) {
	f := newFeeder(4 * (1000 + 40 + overhead))
	for range 4 {
		f.client(1, flow.ACK, 1000)
	}
	f.client(2, flow.ACK, 1000)
	f.drain()
	f.server(2, flow.ACK, 300)
	f.put(port(client4, 2), port(pod4, 9090), segment{flags: flow.ACK, seq: 999, payload: 1})
	f.client(2, flow.ACK, 700)
	if got := f.drain(); got.bytes[2] != 700 || got.lost[2].Bytes != 0 || got.lost[2].Packets != 2 {
		t.Errorf("%d bytes pass, lost %+v", got.bytes[2], got.lost[2])
	}
}

// counting is what becomes of a flow for whoever reads the queue: what it covers of the client's sequence numbers, holes
// included, which it knows of.
type counting struct {
	open bool
	at   uint32
	sum  uint64
}

func (c *counting) packet(s *segment) {
	end := s.from() + uint32(s.payload)
	switch {
	case !s.fromClient && !c.open:
		return
	case !s.fromClient:
		end = s.ack
	case !c.open:
		c.open, c.at = true, s.from()
	}
	if end-c.at <= maxWindow {
		c.sum += uint64(end - c.at)
		c.at = end
	}
}

// TestQueueCountsEachByteOnce: whatever is sent again, overlaps, comes late or was dropped by the kernel, what a reader of
// the queue gets or knows to be missing and what the queue says to be lost is what the clients have sent.
func TestQueueCountsEachByteOnce(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 2))
		f := newFeeder(16 << 10)
		const flows = 12
		var begin, end [flows]uint32
		var got [flows]counting
		var lost [flows]uint64
		put := func(p int, seq uint32, flags uint8, payload int) {
			f.put(port(client4, uint16(p)), port(pod4, 9090), segment{flags: flags, seq: seq, payload: payload})
			if next := seq + uint32(payload); int32(next-end[p]) > 0 {
				end[p] = next
			}
		}
		drain := func() {
			f.q.Flush()
			for r, ok := f.q.Pop(); ok; r, ok = f.q.Pop() {
				if r.Data == nil {
					got[r.Client.Port()].open = false
					lost[r.Client.Port()] += r.Bytes
				} else {
					s, _ := parse(r.Packet, f.q.server) // it was pushed
					got[s.client.Port()].packet(&s)
				}
			}
		}
		for p := range flows {
			begin[p] = -uint32(random.IntN(100_000)) // most of them wrap
			end[p] = begin[p]
			if p%2 == 0 {
				put(p, begin[p]-1, flow.SYN, 0)
				f.put(port(pod4, 9090), port(client4, uint16(p)), segment{flags: flow.SYN | flow.ACK, ack: begin[p]})
			} else { // in the middle
				put(p, begin[p], flow.ACK, 1+random.IntN(2000))
			}
		}
		for range 3000 {
			p, n := random.IntN(flows), random.IntN(3000)
			back := min(uint32(random.IntN(5000)), end[p]-begin[p])
			switch random.IntN(12) {
			case 0:
				drain()
			case 1, 2:
				f.put(port(pod4, 9090), port(client4, uint16(p)), segment{flags: flow.ACK, ack: end[p] - back*uint32(random.IntN(2)), payload: n})
			case 3, 4:
				put(p, end[p]-back, flow.ACK, n) // again, and perhaps more
			case 5:
				put(p, end[p], flow.ACK, 0)
			case 6:
				put(p, end[p]-min(back, 1), flow.ACK, int(min(back, 1))) // a probe
			case 7:
				end[p] += uint32(n) // which the kernel drops
			default:
				put(p, end[p], flow.ACK, n)
			}
		}
		some := false
		for p := range flows {
			put(p, end[p], flow.ACK, 0)
		}
		drain()
		for p := range flows {
			some = some || lost[p] > 0
			if sent := uint64(end[p] - begin[p]); got[p].sum+lost[p] != sent {
				t.Errorf("seed %d, flow %d: %d bytes are got or known to be missing, %d lost, together not the %d that were sent", seed, p, got[p].sum, lost[p], sent)
			}
		}
		if !some {
			t.Errorf("seed %d: nothing was lost: the test shows nothing", seed)
		}
	}
}
