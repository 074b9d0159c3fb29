package reassembly

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
)

// A world is one TCP connection whose packets are captured in front of the server.
// The client sends as it likes, the server takes what it likes: what the capture
// makes of it must be what the server took.
type world struct {
	*rand.Rand
	out     func(mirror.Packet)
	stream  []byte // what the client has to say
	isn     uint32
	missing float64 // share of packets that the capture does not have
	lies    bool    // the client may send other bytes again than it has sent before
	largest int     // segment

	sent    int            // the client's next new byte
	taken   []byte         // what the server has taken in order
	ahead   map[int]byte   // what it has taken out of order
	fin     bool           // the FIN was taken
	onWay   []flow.Segment // to the server
	closed  bool           // the server is not taking anything now: a zero window
	lastAck int            // as the capture has seen it
	clean   bool           // nothing was missing in the capture so far
}

var flowOfWorld = flow.Flow{Proto: flow.TCP, Src: client, Dst: server}

func (w *world) chance(p float64) bool { return w.Float64() < p }

// capture shows a packet to the Assembler, or does not.
func (w *world) capture(seg flow.Segment) {
	if w.chance(w.missing) {
		w.clean = false
		return
	}
	w.out(mirror.Packet{Data: mirrortest.Packet(seg)})
}

// send makes the client send from..to, with the FIN if that is the end.
func (w *world) send(from, to int) {
	data := bytes.Clone(w.stream[from:to])
	if w.lies && from < w.sent && len(data) > 0 && w.chance(0.3) {
		data[w.IntN(len(data))]++
	}
	seg := flow.Segment{Flow: flowOfWorld, Seq: w.isn + 1 + uint32(from), Ack: 1, Flags: flow.ACK, Payload: data}
	if to == len(w.stream) && w.chance(0.8) {
		seg.Flags |= flow.FIN
	}
	w.onWay = append(w.onWay, seg)
	w.sent = max(w.sent, to)
}

// step lets one thing happen.
func (w *world) step() {
	switch k := w.IntN(10); {
	case k < 4: // something new
		to := min(len(w.stream), w.sent+w.IntN(w.largest)+1)
		w.send(w.sent, to)
	case k < 5 && w.sent > 0: // again, with other ends than before
		from := min(w.sent, len(w.taken)+w.IntN(w.largest+1)-w.largest/2)
		from = max(from, 0)
		w.send(from, min(w.sent, from+w.IntN(w.largest)+1))
	case k < 6 && len(w.onWay) > 0: // lost, twice or overtaken on the way
		i := w.IntN(len(w.onWay))
		switch seg := w.onWay[i]; w.IntN(3) {
		case 0:
			w.onWay = append(w.onWay[:i], w.onWay[i+1:]...)
		case 1:
			w.onWay = append(w.onWay, seg)
		case 2:
			j := w.IntN(len(w.onWay))
			w.onWay[i], w.onWay[j] = w.onWay[j], seg
		}
	case k < 7:
		w.closed = w.chance(0.3)
	case len(w.onWay) > 0:
		seg := w.onWay[0]
		w.onWay = w.onWay[1:]
		w.capture(seg)
		w.take(seg)
		if w.chance(0.7) {
			w.acknowledge()
		}
	}
}

// take is what the server's kernel does. Of several versions of a byte it takes any.
func (w *world) take(seg flow.Segment) {
	from := int(int32(seg.Seq - w.isn - 1))
	if w.closed {
		return
	}
	for i, b := range seg.Payload {
		at := from + i
		_, known := w.ahead[at]
		if at >= len(w.taken) && (!known || w.chance(0.5)) {
			w.ahead[at] = b
		}
	}
	for {
		b, ok := w.ahead[len(w.taken)]
		if !ok {
			break
		}
		delete(w.ahead, len(w.taken))
		w.taken = append(w.taken, b)
	}
	if seg.Flags&flow.FIN != 0 && len(w.taken) == len(w.stream) {
		w.fin = true
	}
}

func (w *world) acknowledge() {
	ack := uint32(len(w.taken))
	if w.fin {
		ack++
	}
	seg := flow.Segment{Flow: flowOfWorld.Reverse(), Seq: 1, Ack: w.isn + 1 + ack, Flags: flow.ACK}
	if w.chance(w.missing) {
		return // no harm: a later one says the same
	}
	w.out(mirror.Packet{Data: mirrortest.Packet(seg)})
	w.lastAck = int(ack)
}

// finish makes everything arrive.
func (w *world) finish() {
	w.closed, w.missing = false, 0
	w.acknowledge()
	for len(w.taken) < len(w.stream) || !w.fin {
		w.onWay = nil
		from := len(w.taken)
		seg := flow.Segment{Flow: flowOfWorld, Seq: w.isn + 1 + uint32(from), Ack: 1, Flags: flow.ACK, Payload: w.stream[from:min(len(w.stream), from+w.largest)]}
		if from+len(seg.Payload) == len(w.stream) {
			seg.Flags |= flow.FIN
		}
		w.capture(seg)
		w.take(seg)
		w.acknowledge()
	}
}

// a follower compares what it gets with what the server has taken.
type follower struct {
	w     *world
	at    int // in the stream
	gaps  int
	ended bool
	err   error
}

func (f *follower) Data(b []byte, _ bool) {
	if end := f.at + len(b); end > len(f.w.taken) || !bytes.Equal(b, f.w.taken[f.at:end]) {
		f.err = fmt.Errorf("bytes %d to %d of %d are not what the server took", f.at, end, len(f.w.taken))
	}
	f.at += len(b)
}

func (f *follower) Gap(_ Reason, n uint64) {
	f.at += int(n)
	f.gaps++
}

func (f *follower) End(bool) { f.ended = true }

// run plays one world and returns what is wrong with the outcome.
func run(seed uint64, cfg world) error {
	w := &cfg
	w.Rand = rand.New(rand.NewPCG(seed, 0))
	w.clean = true
	w.ahead = map[int]byte{}
	w.stream = make([]byte, w.IntN(20*w.largest)+1)
	for i := range w.stream {
		w.stream[i] = byte(w.Uint32())
	}
	w.isn = -uint32(w.IntN(len(w.stream) + 10)) // the numbers wrap on the way
	if w.chance(0.3) {
		w.isn += 1 << 31
	}
	f := &follower{w: w}
	opened := false
	a := New(Config{Server: func(a netip.AddrPort) bool { return a == server }, MaxHeld: 1 << 30, Open: func(_ flow.Flow, whole bool, _ time.Time) (Stream, Stream) {
		if !whole || opened {
			f.err = fmt.Errorf("the flow is opened twice, or not whole")
		}
		opened = true
		return f, nil
	}})
	w.out = a.Packet
	w.out(mirror.Packet{Data: mirrortest.Packet(flow.Segment{Flow: flowOfWorld, Seq: w.isn, Flags: flow.SYN})})
	w.out(mirror.Packet{Data: mirrortest.Packet(flow.Segment{Flow: flowOfWorld.Reverse(), Seq: 0, Ack: w.isn + 1, Flags: flow.SYN | flow.ACK})})
	for range 200 {
		w.step()
		if f.err != nil {
			return f.err
		}
		if !w.lies && f.gaps == 0 && min(w.lastAck, len(w.stream)) != f.at {
			return fmt.Errorf("%d bytes are acknowledged, %d were handed on", w.lastAck, f.at)
		}
	}
	w.finish()
	switch {
	case f.err != nil:
		return f.err
	case f.at < len(w.stream):
		return fmt.Errorf("%d bytes of %d", f.at, len(w.stream))
	case f.at > len(w.stream)+1, f.at == len(w.stream)+1 && f.gaps == 0:
		return fmt.Errorf("%d bytes of %d", f.at, len(w.stream))
	case w.clean && !w.lies && (f.gaps > 0 || !f.ended):
		return fmt.Errorf("%d gaps, ended %v, though all was captured", f.gaps, f.ended)
	case !f.ended && f.gaps == 0:
		return fmt.Errorf("no end and no gap")
	}
	return nil
}

// TestAnyTraffic makes up connections with loss, reordering, duplicates, overlaps,
// zero windows and wrapped numbers, and captures in which packets are missing. Lies
// and missing packets do not come together: of a byte of which only the version that
// the server did not take was captured, nobody can know better.
func TestAnyTraffic(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  world
	}{
		{"all-captured", world{largest: 50}},
		{"large-segments", world{largest: 65000}},
		{"5-percent-missing", world{largest: 50, missing: 0.05}},
		{"half-missing", world{largest: 50, missing: 0.5}},
		{"lies", world{largest: 50, lies: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := uint64(500)
			if tt.cfg.largest > 1000 {
				n = 5
			}
			for seed := range n {
				if err := run(seed, tt.cfg); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		})
	}
}

// A reader of streams whose bytes say of which connection they are, and where in it.
type reader struct {
	next byte
	sure bool // that it comes next
	ends int
	err  error
}

func (r *reader) Data(b []byte, _ bool) {
	for _, got := range b {
		if r.sure && got != r.next {
			r.err = fmt.Errorf("%#x comes, want %#x", got, r.next)
		}
		r.next, r.sure = got&0xf0|(got+1)&0xf, true
	}
}

func (r *reader) Gap(Reason, uint64) { r.sure = false }
func (r *reader) End(bool)           { r.ends++ }

// TestAnyReuse makes up connections of the same addresses, one after the other, that end in
// all ways, in a capture in which any packet may be missing: no stream goes on with bytes
// of another connection unless it has a gap there, and each ends at most once.
func TestAnyReuse(t *testing.T) {
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 1))
		missing := []float64{0, 0.05, 0.3}[seed%3]
		var readers []*reader
		a := New(Config{Server: func(a netip.AddrPort) bool { return a == server }, Open: func(flow.Flow, bool, time.Time) (Stream, Stream) {
			r := &reader{}
			readers = append(readers, r)
			return r, nil
		}})
		dark := 0 // packets that are still missing in a row
		c := mirrortest.New(client, server, func(p mirror.Packet) {
			if dark--; dark < 0 && random.Float64() >= missing {
				a.Packet(p)
			}
		})
		const connections = 20
		for k := range byte(connections) {
			c.Client += 1 + random.Uint32()>>uint(2+random.IntN(20))
			c.Server += 1 + random.Uint32()>>2
			if random.IntN(4) == 0 {
				dark = random.IntN(4)
			}
			c.Open()
			at := byte(0)
			for range 1 + random.IntN(4) {
				b := make([]byte, 1+random.IntN(40))
				for i := range b {
					b[i] = k<<4 | at&0xf
					at++
				}
				c.FromClient(flow.ACK, string(b))
				if random.IntN(3) == 0 { // once more
					c.Client -= uint32(len(b))
					c.FromClient(flow.ACK, string(b))
				}
				c.FromServer(flow.ACK, "x")
			}
			switch random.IntN(4) {
			case 0:
				c.FromClient(flow.RST|flow.ACK, "")
			case 1:
				c.FromServer(flow.RST|flow.ACK, "")
			default:
				c.Close()
			}
		}
		for i, r := range readers {
			if r.err != nil || r.ends > 1 {
				t.Fatalf("seed %d, stream %d: %v, %d ends", seed, i, r.err, r.ends)
			}
		}
		if missing == 0 && len(readers) < connections/2 {
			t.Fatalf("seed %d: %d streams of %d connections", seed, len(readers), connections)
		}
	}
}
