package fairqueue

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/flow"
)

func numbered(n int) flow.Flow {
	return flow.Flow{
		Proto: flow.TCP,
		Src:   netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(1000+n)),
		Dst:   netip.MustParseAddrPort("198.51.100.1:80"),
	}
}

var start = time.Unix(1000, 0)

func ignore[T any](T) {}

// all pops everything of a lane.
func all[T any](q *Queue[T], l Lane) []T {
	var got []T
	out := make([]T, 3)
	for {
		n := q.Pop(l, out, 1<<30)
		if n == 0 {
			return got
		}
		got = append(got, out[:n]...)
	}
}

func TestBulkMovesWhenWhatLeftHasArrived(t *testing.T) {
	q := New(ignore[int])
	q.Split(true)
	bulk, other := numbered(1), numbered(2)
	for i := range 2 {
		if l, _ := q.Push(i, Packet{Flow: bulk, Size: 60000}, start); l != Express {
			t.Fatalf("packet %d leaves by %v", i, l)
		}
	}
	if got := all(q, Express); len(got) != 2 {
		t.Fatalf("popped %v", got)
	}
	q.Push(2, Packet{Flow: bulk, Size: 60000}, start)
	q.Push(100, Packet{Flow: other, Size: 100}, start)
	if l := q.Lane(bulk); l != Bulk {
		t.Errorf("a flow of 180 KB is %v", l)
	}
	if got := all(q, Bulk); len(got) != 0 {
		t.Errorf("%v left before what is on its way had arrived", got)
	}
	if got := all(q, Express); len(got) != 1 || got[0] != 100 {
		t.Errorf("express popped %v, want the other flow's", got)
	}
	if q.Arrived(Express, 1) {
		t.Error("ready though one of two has arrived")
	}
	if !q.Arrived(Express, 2) {
		t.Error("not ready though both have arrived")
	}
	if got := all(q, Bulk); len(got) != 1 || got[0] != 2 {
		t.Errorf("bulk popped %v", got)
	}
	if q.Bytes() != 0 || q.LaneBytes(Express) != 0 || q.LaneBytes(Bulk) != 0 || q.FlowBytes(bulk) != 0 {
		t.Errorf("%d bytes left", q.Bytes())
	}
	// After a pause it begins anew, once what left by Bulk has arrived.
	later := start.Add(2 * time.Second)
	q.Push(3, Packet{Flow: bulk, Size: 100}, later)
	if got := all(q, Express); len(got) != 0 {
		t.Errorf("%v overtakes", got)
	}
	q.Arrived(Bulk, 1)
	if got := all(q, Express); len(got) != 1 || got[0] != 3 {
		t.Errorf("express popped %v", got)
	}
}

// TestStrand takes flows out of Bulk, wherever they are there, and lets go those that wait for it.
func TestStrand(t *testing.T) {
	q := New(ignore[int])
	q.Split(true)
	push := func(f, value, size int, at time.Time) { q.Push(value, Packet{Flow: numbered(f), Size: size}, at) }
	for range 3 {
		push(1, 10, 60000, start) // has not left Express
		push(2, 20, 60000, start)
		push(3, 30, 60000, start)
	}
	q.Arrived(Express, uint64(len(all(q, Express)))) // nothing: all have moved before they left
	push(1, 11, 60000, start)
	all(q, Bulk)
	push(1, 12, 60000, start) // queued in Bulk, and more of it on its way
	later := start.Add(2 * time.Second)
	push(2, 21, 100, later) // back in Express, waits until what left by Bulk has arrived
	push(4, 40, 60000, later)
	all(q, Express)
	push(4, 41, 100000, later) // moves to Bulk, waits until what left by Express has arrived
	if got := all(q, Express); len(got) != 0 || q.Lane(numbered(2)) != Express || q.Lane(numbered(4)) != Bulk {
		t.Fatalf("popped %v; flow 2 is %v, flow 4 %v", got, q.Lane(numbered(2)), q.Lane(numbered(4)))
	}

	q.Split(false)
	if q.Arrived(Express, 0) || q.LaneBytes(Bulk) != 160000 {
		t.Errorf("%d bytes in bulk", q.LaneBytes(Bulk))
	}
	q.Strand()
	if got := q.LaneBytes(Bulk); got != 0 || q.LaneBytes(Express) != q.Bytes() || q.Bytes() != 160100 {
		t.Errorf("%d bytes in bulk, %d in express, %d in all", got, q.LaneBytes(Express), q.Bytes())
	}
	if got := all(q, Bulk); len(got) != 0 {
		t.Errorf("bulk popped %v", got)
	}
	got := all(q, Express)
	slices.Sort(got)
	if diff := cmp.Diff([]int{12, 21, 41}, got); diff != "" || q.Bytes() != 0 || q.Len() != 0 {
		t.Errorf("express (-want +got):\n%s, %d bytes are left", diff, q.Bytes())
	}

	q.Split(true) // and all begins anew
	push(1, 13, 200000, later)
	if q.Lane(numbered(1)) != Bulk {
		t.Error("a flow that sends much is not bulk any more")
	}
	q.Arrived(Express, 1000)
	if got := all(q, Bulk); len(got) != 1 {
		t.Errorf("bulk popped %v", got)
	}
}

func TestWhoMoves(t *testing.T) {
	tests := []struct {
		name  string
		size  int
		every time.Duration
		count int
		pop   bool
		want  Lane
	}{
		{"calls", 150, 500 * time.Microsecond, 20000, true, Express},
		{"pages", 10000, 50 * time.Millisecond, 1000, true, Express},
		{"full-speed", 65440, 650 * time.Microsecond, 100, true, Bulk},
		{"many-small", 1400, 100 * time.Microsecond, 2000, true, Bulk},
		{"slow-way", 15000, 20 * time.Millisecond, 100, false, Bulk},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := New(ignore[int])
			q.Split(true)
			now := start
			for i := range tt.count {
				q.Push(i, Packet{Flow: numbered(1), Size: tt.size}, now)
				now = now.Add(tt.every)
				if tt.pop {
					all(q, Express)
					all(q, Bulk)
				}
			}
			if got := q.Lane(numbered(1)); got != tt.want {
				t.Errorf("in %v, want %v", got, tt.want)
			}
		})
	}
}

func TestFlowsTakeTurns(t *testing.T) {
	q := New(ignore[int])
	for i := range 40 {
		q.Push(1, Packet{Flow: numbered(1), Size: 60000}, start)
		if i%2 == 0 {
			q.Push(2, Packet{Flow: numbered(2), Size: 30000}, start)
		}
	}
	one := make([]int, 1)
	for range 6 {
		q.Pop(Express, one, 1) // now both are at it
	}
	q.Push(3, Packet{Flow: numbered(3), Size: 100}, start) // has just begun: goes first
	if q.Pop(Express, one, 1<<20); one[0] != 3 {
		t.Errorf("popped %v, want the new flow", one)
	}
	bytes := map[int]int{}
	for range 20 {
		q.Pop(Express, one, 1)
		bytes[one[0]] += map[int]int{1: 60000, 2: 30000}[one[0]]
	}
	if d := bytes[1] - bytes[2]; d < -2*quantum || d > 2*quantum {
		t.Errorf("bytes per flow %v, want equal shares", bytes)
	}
	if n := q.Pop(Express, make([]int, 100), 100000); n > 3 {
		t.Errorf("%d packets for 100000 bytes", n)
	}
}

// TestNeverReordered pushes at random, pops at random, and lets what was popped arrive with a different delay per lane.
// Nothing is lost but acknowledgements of which a later packet says as much.
func TestNeverReordered(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		type pkt struct {
			flow, number int
			acking       flow.Acking
		}
		var superseded, sent, got [6]int
		q := New(func(p pkt) {
			if !p.acking.Pure {
				t.Fatalf("seed %d: data is dropped", seed)
			}
			superseded[p.flow]++
		})
		var ways [Lanes][]pkt // popped, not arrived
		var arrived [Lanes]uint64
		var acked [6]uint32
		used := map[Lane]int{}
		now := start
		deliver := func(l Lane) {
			p := ways[l][0]
			ways[l] = ways[l][1:]
			arrived[l]++
			if p.number < got[p.flow] || p.acking.Ack < acked[p.flow] {
				t.Fatalf("seed %d: flow %d: packet %d arrives after %d", seed, p.flow, p.number, got[p.flow])
			}
			got[p.flow], acked[p.flow] = p.number+1, p.acking.Ack
			used[l]++
		}
		// Each packet acknowledges one byte more than the one before. So many bytes of data were sent before it.
		var bytes [6]uint32
		push := func(f, size int) {
			p := Packet{Flow: numbered(f), Size: size, Acking: flow.Acking{Seq: bytes[f], Ack: uint32(sent[f]), Pure: size == 0}}
			p.Size = max(size, 52)
			bytes[f] += uint32(size)
			q.Push(pkt{f, sent[f], p.Acking}, p, now)
			sent[f]++
		}
		out := make([]pkt, 4)
		for step := range 20000 {
			now = now.Add(time.Duration(rnd.IntN(2000)) * time.Microsecond)
			if step%1000 == 0 {
				q.Split(step/1000%4 != 3)
				now = now.Add(time.Duration(rnd.IntN(3)) * time.Second)
			}
			switch l := Lane(rnd.IntN(2)); rnd.IntN(8) {
			case 0, 1:
				f := rnd.IntN(len(sent))
				push(f, 1+rnd.IntN(1+f*13000))
			case 2, 3:
				n := q.Pop(l, out, 1+rnd.IntN(200000))
				ways[l] = append(ways[l], out[:n]...)
			case 4:
				if len(ways[l]) > 0 && (l == Express || rnd.IntN(3) == 0) {
					deliver(l)
				}
			case 5:
				q.Arrived(l, arrived[l])
			case 6:
				push(rnd.IntN(len(sent)), 0)
			case 7:
				q.Hurry(l)
			}
		}
		for idle := 0; idle < 2; idle++ {
			for l := range Lanes {
				q.Hurry(l)
				ways[l] = append(ways[l], all(q, l)...)
				for len(ways[l]) > 0 {
					deliver(l)
					idle = 0
				}
				q.Arrived(l, arrived[l])
			}
		}
		if got != sent || q.Bytes() != 0 || q.Len() != 0 {
			t.Fatalf("seed %d: %v arrived of %v, %d bytes queued", seed, got, sent, q.Bytes())
		}
		if total := sum(sent) - sum(superseded); uint64(total) != arrived[Express]+arrived[Bulk] {
			t.Errorf("seed %d: %d packets arrived, %d of %d were superseded", seed, arrived, superseded, sent)
		}
		if used[Express] == 0 || used[Bulk] == 0 || sum(superseded) == 0 {
			t.Errorf("seed %d: lanes used %v, superseded %v", seed, used, superseded)
		}
	}
}

func sum(n [6]int) (total int) {
	for _, v := range n {
		total += v
	}
	return total
}

func TestForgetsFlows(t *testing.T) {
	q := New(ignore[int])
	now := start
	for i := range 50000 {
		q.Push(i, Packet{Flow: numbered(i % 60000), Size: 100}, now)
		all(q, Express)
		now = now.Add(time.Millisecond)
	}
	if len(q.flows) > 2500 {
		t.Errorf("%d flows remembered, of 1000 per second", len(q.flows))
	}
	q.Push(1, Packet{Flow: numbered(1), Size: 100}, now)
	q.Push(2, Packet{Flow: numbered(2), Size: 40}, now)
	dropped := 0
	q.Clear(func(int) { dropped++ })
	if dropped != 2 || q.Bytes() != 0 || len(all(q, Express)) != 0 {
		t.Errorf("Clear dropped %d, %d bytes left", dropped, q.Bytes())
	}
}

func BenchmarkPushPop(b *testing.B) {
	q := New(ignore[[]byte])
	q.Split(true)
	pkt, out := make([]byte, 1500), make([][]byte, 8)
	flows := []flow.Flow{numbered(1), numbered(2), numbered(3)}
	b.ReportAllocs()
	popped := uint64(0)
	for i := range b.N {
		q.Push(pkt, Packet{Flow: flows[i%3], Size: len(pkt)}, start.Add(time.Duration(i)*time.Microsecond))
		for l := range Lanes {
			n := q.Pop(l, out, 1<<20)
			if l == Express {
				popped += uint64(n)
				q.Arrived(l, popped)
			}
		}
	}
}
