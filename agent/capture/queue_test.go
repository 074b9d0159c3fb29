package capture

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// feeder pushes segments of flows from different ports to one server.
type feeder struct {
	q   *Queue
	now time.Time
	seq map[uint16]uint32 // of what a port sends next
}

func newFeeder(budget int) *feeder {
	return &feeder{q: NewQueue(testSpec(), budget), now: time.Unix(1000, 0), seq: make(map[uint16]uint32)}
}

// client pushes a segment of the client at a port.
func (f *feeder) client(from uint16, flags uint8, payload int) {
	f.push(port(client4, from), port(pod4, 9090), flags, payload)
}

// server pushes a segment of the server, whose payload is cut.
func (f *feeder) server(to uint16, flags uint8, payload int) {
	f.push(port(pod4, 9090), port(client4, to), flags, payload)
}

func (f *feeder) push(src, dst netip.AddrPort, flags uint8, payload int) {
	f.put(src, dst, segment{flags: flags, seq: f.seq[src.Port()], ack: f.seq[dst.Port()], payload: payload})
	f.seq[src.Port()] += uint32(payload)
	if flags&(flow.SYN|flow.FIN) != 0 {
		f.seq[src.Port()]++
	}
}

// put pushes s.
func (f *feeder) put(src, dst netip.AddrPort, s segment) {
	b := packet(src, dst, s.flags, s.seq, s.payload)
	tcp := b[len(b)-20-s.payload:]
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	p := Packet{Time: f.now, Iface: Pod, Data: b, Wire: len(b)}
	if src.Port() == 9090 {
		p.Data = b[:min(len(b), headers)]
	}
	f.q.Push(p)
}

// tally is what was taken from a queue, by the client's port.
type tally struct {
	packets map[uint16]int // of the client
	bytes   map[uint16]int
	lost    map[uint16]Loss
	order   []string
}

func (f *feeder) drain() tally {
	t := tally{packets: map[uint16]int{}, bytes: map[uint16]int{}, lost: map[uint16]Loss{}}
	f.q.Flush()
	for {
		r, ok := f.q.Pop()
		if !ok {
			return t
		}
		if r.Data == nil {
			p := r.Client.Port()
			sum := t.lost[p]
			sum.Packets += r.Packets
			sum.Bytes += r.Bytes
			t.lost[p] = sum
			t.order = append(t.order, fmt.Sprint("lost ", p))
			continue
		}
		s, ok := parse(r.Packet, f.q.server)
		if !ok {
			panic("a packet cannot be read that was pushed")
		}
		t.packets[s.client.Port()]++
		if s.fromClient {
			t.bytes[s.client.Port()] += s.payload
		}
		t.order = append(t.order, fmt.Sprint("packet ", s.client.Port()))
	}
}

// TestQueueGivesUpTheNewestFlow: older flows go on without a hole, and every packet of the lost one is counted.
func TestQueueGivesUpTheNewestFlow(t *testing.T) {
	f := newFeeder(10 * (1000 + 40 + overhead))
	for range 4 {
		f.client(1, flow.ACK, 1000)
		f.client(2, flow.ACK, 1000)
	}
	f.client(3, flow.ACK, 1000)
	for range 5 {
		f.client(1, flow.ACK, 1000) // only two find room without giving up 3, then 2
	}
	f.client(3, flow.ACK, 1000)
	f.client(2, flow.ACK, 500)
	got := f.drain()
	if got.packets[1] != 9 || got.bytes[1] != 9000 || got.lost[1].Packets != 0 {
		t.Errorf("the oldest flow: %d packets, %d bytes, lost %+v; want all 9", got.packets[1], got.bytes[1], got.lost[1])
	}
	if l := got.lost[3]; got.packets[3] != 0 || l.Packets != 2 || l.Bytes != 2000 {
		t.Errorf("the newest flow: %d packets, lost %+v, want 2 packets, 2000 bytes", got.packets[3], l)
	}
	if l := got.lost[2]; got.packets[2] != 0 || l.Packets != 5 || l.Bytes != 4500 {
		t.Errorf("the second flow: %d packets, lost %+v, want 5 packets, 4500 bytes", got.packets[2], l)
	}
	if s := f.q.Stats(); s.LostFlows != 2 || s.LostPackets != 7 || s.LostBytes != 6500 || s.Packets != 16 || s.Bytes != 15500 {
		t.Errorf("counters %+v", s)
	}
}

// A flow that was given up goes on with a request that follows an answer, once there is room.
func TestQueueResumesAtARequest(t *testing.T) {
	f := newFeeder(4 * (1000 + 40 + overhead))
	f.client(1, flow.ACK, 100)
	for range 5 {
		f.client(2, flow.ACK, 1000)
	}
	f.drain()
	f.client(2, flow.ACK, 1000) // the rest of the request
	f.server(2, flow.ACK, 300)
	f.server(2, flow.ACK, 300)
	f.client(2, flow.ACK, 0)
	f.client(2, flow.ACK, 700) // the next one
	f.client(2, flow.ACK, 10)
	got := f.drain()
	if got.bytes[2] != 710 || got.packets[2] != 2 {
		t.Errorf("%d packets with %d bytes, want the request of 710 bytes in 2", got.packets[2], got.bytes[2])
	}
	if l := got.lost[2]; l.Packets != 4 || l.Bytes != 1000 {
		t.Errorf("lost %+v, want 4 packets, 1000 bytes", l)
	}
	if want := "[lost 2 packet 2 packet 2]"; fmt.Sprint(got.order) != want {
		t.Errorf("order %v, want %v", got.order, want)
	}
}

// While the queue is full a lost flow stays lost, and what it answers to is not joined in the middle.
func TestQueueStaysLostWithoutRoom(t *testing.T) {
	f := newFeeder(4 * (1000 + 40 + overhead))
	for range 4 {
		f.client(1, flow.ACK, 1000)
	}
	f.client(2, flow.ACK, 1000)
	f.server(2, flow.ACK, 300)
	f.client(2, flow.ACK, 1000) // begins while there is no room
	f.drain()
	f.client(2, flow.ACK, 1000) // its second half
	if got := f.drain(); got.packets[2] != 0 || got.lost[2].Bytes != 1000 {
		t.Errorf("%d packets passed, lost %+v", got.packets[2], got.lost[2])
	}
}

// The same ends with another initial sequence number are another flow.
func TestQueueTellsReusedEndsApart(t *testing.T) {
	f := newFeeder(4 * (1000 + 40 + overhead))
	f.client(1, flow.SYN, 0)
	for range 5 {
		f.client(1, flow.ACK, 1000)
	}
	f.drain()
	f.client(1, flow.FIN|flow.ACK, 0)
	f.server(1, flow.FIN|flow.ACK, 0)
	f.client(1, flow.SYN, 0)
	f.client(1, flow.ACK, 10)
	got := f.drain()
	if got.packets[1] != 2 || got.bytes[1] != 10 || got.lost[1].Packets != 2 {
		t.Errorf("%+v, want the two packets of the new flow and two lost ones", got)
	}
}

// So are they behind the end of the one before, if the new one's beginning is not captured; also long after.
func TestQueueTellsReusedEndsWithoutABeginning(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(f *feeder)
	}{
		{"behind-its-end", func(f *feeder) {
			f.client(1, flow.FIN|flow.ACK, 0)
			f.server(1, flow.FIN|flow.ACK, 0)
			f.client(1, flow.ACK, 0)
		}},
		{"long-after-a-reset", func(f *feeder) {
			f.client(1, flow.RST, 0)
			f.now = f.now.Add(forget + time.Second)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeeder(4 * (1000 + 40 + overhead))
			f.client(1, flow.SYN, 0)
			for range 5 {
				f.client(1, flow.ACK, 1000) // which is too much
			}
			f.drain()
			tt.end(f)
			f.drain()
			f.seq[1] += 70_000
			f.client(1, flow.ACK, 10)
			if got := f.drain(); got.bytes[1] != 10 || got.lost[1].Packets != 0 {
				t.Errorf("%+v, want the packet of the new flow", got)
			}
			if lost := f.q.Stats().LostBytes; lost != 5000 {
				t.Errorf("%d bytes are lost, want 5000", lost)
			}
		})
	}
}

func TestQueueCountsTheKernels(t *testing.T) {
	f := newFeeder(1 << 20)
	f.q.DroppedByKernel(3)
	f.client(1, flow.ACK, 1)
	f.q.DroppedByKernel(4)
	if got := f.drain(); got.lost[0].Packets != 7 || got.packets[1] != 1 {
		t.Errorf("%+v", got)
	}
}

// Whatever comes, in whatever order it is taken: memory is bounded, no flow has a hole, and what is taken and what is
// lost is what was pushed.
func TestQueueIsExact(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			const budget = 64 << 10
			f := newFeeder(budget)
			pushed, bytes := map[uint16]int{}, map[uint16]int{}
			taken := tally{packets: map[uint16]int{}, bytes: map[uint16]int{}}
			lost := map[uint16]Loss{}
			add := func(got tally) {
				for p, n := range got.packets {
					taken.packets[p] += n
				}
				for p, n := range got.bytes {
					taken.bytes[p] += n
				}
				for p, l := range got.lost {
					sum := lost[p]
					sum.Packets += l.Packets
					sum.Bytes += l.Bytes
					lost[p] = sum
				}
			}
			for range 5000 {
				p := uint16(1 + random.IntN(40))
				n := random.IntN(3000)
				f.now = f.now.Add(time.Duration(random.IntN(10)) * time.Millisecond)
				switch random.IntN(20) {
				case 0:
					add(f.drain())
				case 1:
					f.client(p, flow.SYN, 0)
					pushed[p]++
				case 2:
					f.client(p, flow.RST, 0)
					pushed[p]++
				case 3, 4, 5:
					f.server(p, flow.ACK, n)
					pushed[p]++
				default:
					f.client(p, flow.ACK, n)
					pushed[p]++
					bytes[p] += n
				}
				if f.q.bytes > budget {
					t.Fatalf("%d bytes are queued, the budget is %d", f.q.bytes, budget)
				}
			}
			add(f.drain())
			if f.q.bytes != 0 {
				t.Errorf("%d bytes left in an empty queue", f.q.bytes)
			}
			some := false
			for p := range pushed {
				some = some || lost[p].Packets > 0
				if got := taken.packets[p] + int(lost[p].Packets); got != pushed[p] {
					t.Errorf("flow %d: %d packets taken, %d lost, %d pushed", p, taken.packets[p], lost[p].Packets, pushed[p])
				}
				if got := taken.bytes[p] + int(lost[p].Bytes); got != bytes[p] {
					t.Errorf("flow %d: %d bytes taken, %d lost, %d pushed", p, taken.bytes[p], lost[p].Bytes, bytes[p])
				}
			}
			if !some {
				t.Error("nothing was lost: the test shows nothing")
			}
		})
	}
}

// A client that takes nothing while connections come and go costs no more than the budget and a table of flows.
func TestQueueIsBoundedWhileNobodyTakes(t *testing.T) {
	f := newFeeder(16 << 10)
	const flows = 60_000
	pushed := 0
	for i := range flows {
		src := port(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(1024+i%50_000))
		f.now = f.now.Add(time.Millisecond)
		f.push(src, port(pod4, 9090), flow.SYN, 0)
		f.push(src, port(pod4, 9090), flow.ACK, 500)
		pushed += 2
	}
	if n := len(f.q.flows); n > maxFlows {
		t.Errorf("%d flows are remembered", n)
	}
	if n := len(f.q.items); n > maxLosses+1000 {
		t.Errorf("%d items are queued", n)
	}
	f.q.Flush()
	total := 0
	for {
		r, ok := f.q.Pop()
		if !ok {
			break
		}
		if r.Data != nil {
			total++
		}
		total += int(r.Packets)
	}
	if total != pushed {
		t.Errorf("%d packets taken or lost of %d", total, pushed)
	}
}
