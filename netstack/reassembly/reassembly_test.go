package reassembly

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
)

var (
	client = netip.MustParseAddrPort("203.0.113.7:40000")
	server = netip.MustParseAddrPort("192.0.2.10:8080")
)

// tape notes what a stream gets, as text.
type tape struct{ events []string }

func (t *tape) Data(b []byte, turn bool) {
	kind := "more"
	if turn {
		kind = "turn"
	}
	t.events = append(t.events, fmt.Sprintf("%s %s", kind, b))
}
func (t *tape) Gap(why Reason, n uint64) {
	t.events = append(t.events, fmt.Sprintf("gap %v %d", why, n))
}
func (t *tape) End(reset bool) { t.events = append(t.events, fmt.Sprintf("end %v", reset)) }

// recorder is an Assembler whose flows are on tapes.
type recorder struct {
	*Assembler
	tapes []*tape
	opens []string
}

func record(cfg Config) *recorder {
	r := &recorder{}
	cfg.Server = func(a netip.AddrPort) bool { return a == server }
	cfg.Open = func(f flow.Flow, whole bool, _ time.Time) (Stream, Stream) {
		t := &tape{}
		r.tapes = append(r.tapes, t)
		r.opens = append(r.opens, fmt.Sprintf("%v whole=%v", f.Src, whole))
		return t, nil
	}
	r.Assembler = New(cfg)
	return r
}

// want compares what the flows got: one line for each event, an empty line between
// flows.
func (r *recorder) want(t *testing.T, want string) {
	t.Helper()
	var flows []string
	for _, tape := range r.tapes {
		flows = append(flows, strings.Join(tape.events, "; "))
	}
	if got := strings.Join(flows, " | "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestConversations(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(c *mirrortest.Conversation)
		want string
	}{
		{"whole", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("ask")
			c.Answer("answer")
			c.Ask("again")
			c.Close()
		}, "turn ask; turn again; end false"},
		{"not-acknowledged", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.ACK, "ask")
		}, ""},
		{"half-close", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.ACK|flow.FIN, "ask")
			c.FromServer(flow.ACK, "")
			c.Answer("answer")
			c.FromServer(flow.FIN|flow.ACK, "")
			c.FromClient(flow.ACK, "")
		}, "turn ask; end false"},
		{"server-ends-first", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("ask")
			c.FromServer(flow.FIN|flow.ACK, "answer")
			c.FromClient(flow.ACK, "")
			c.Ask("more")
			c.FromClient(flow.FIN|flow.ACK, "")
			c.FromServer(flow.ACK, "")
		}, "turn ask; turn more; end false"},
		{"retransmitted", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.ACK, "one ")
			c.Client -= 4
			c.FromClient(flow.ACK, "one two")
			c.FromServer(flow.ACK, "")
			c.Client -= 3
			c.FromClient(flow.ACK, "TWO") // the server has it
			c.FromServer(flow.ACK, "")
		}, "turn one ; more two"},
		{"reordered", func(c *mirrortest.Conversation) {
			c.Open()
			c.Client += 4
			c.FromClient(flow.ACK, "two ")
			c.Client += 6
			c.FromClient(flow.ACK, "four")
			c.Client -= 4 + 6
			c.FromClient(flow.ACK, "three ")
			c.Client -= 6 + 4 + 4
			c.FromClient(flow.ACK, "one ")
			c.Client += 4 + 6 + 4
			c.FromServer(flow.ACK, "")
		}, "more one ; more two ; more three ; more four"},
		{"acknowledged-in-the-middle-of-a-segment", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.ACK, "onetwo")
			c.Client -= 3
			c.FromServer(flow.ACK, "")
			c.Client += 3
			c.FromServer(flow.ACK, "")
		}, "turn one; more two"},
		{"hole", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.ACK, "one")
			c.Client += 5
			c.Ask("two")
			c.Answer("answer")
			c.Ask("three")
		}, "turn one; gap hole 5; more two; turn three"},
		{"hole-at-the-end", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.Client += 5
			c.Close()
		}, "turn one; gap hole 5; end false"},
		{"fin-is-missing", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.Client++
			c.FromServer(flow.FIN|flow.ACK, "")
			c.FromClient(flow.ACK, "")
		}, "turn one; gap hole 1"},
		{"conflict", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.FromClient(flow.ACK, "two")
			c.Client -= 3
			c.FromClient(flow.ACK, "TWO")
			c.FromServer(flow.ACK, "")
			c.Ask("three")
		}, "turn one; gap conflict 3; more three"},
		{"reset-by-the-client", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.ACK, "ask")
			c.FromClient(flow.RST, "")
			c.FromServer(flow.ACK, "late")
		}, "turn ask; end true"},
		{"reset-with-an-old-number", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("ask")
			c.Client -= 2
			c.FromClient(flow.RST, "")
			c.Client += 2
			c.Ask("more")
		}, "turn ask; more more"},
		{"reset-behind-a-hole", func(c *mirrortest.Conversation) {
			c.Open()
			c.Client += 4
			c.FromClient(flow.RST, "")
		}, "gap hole 4; end true"},
		{"reset-by-the-server", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("ask")
			c.FromClient(flow.ACK, "more")
			c.Client -= 4
			c.FromServer(flow.RST|flow.ACK, "")
			c.Client += 4
			c.FromClient(flow.ACK, "late") // still on its way then
		}, "turn ask; end true"},
		{"refused", func(c *mirrortest.Conversation) {
			c.FromClient(flow.SYN, "")
			c.FromServer(flow.RST|flow.ACK, "")
		}, ""},
		{"syn-twice", func(c *mirrortest.Conversation) {
			c.FromClient(flow.SYN, "")
			c.Client--
			c.Open()
			c.Ask("ask")
		}, "turn ask"},
		{"syn-is-missing", func(c *mirrortest.Conversation) {
			c.Client++
			c.FromServer(flow.SYN|flow.ACK, "")
			c.Ask("ask")
		}, "turn ask"},
		{"syn-ack-is-missing", func(c *mirrortest.Conversation) {
			c.FromClient(flow.SYN, "")
			c.Server++
			c.FromClient(flow.ACK, "")
			c.Ask("ask")
		}, "turn ask"},
		{"fast-open", func(c *mirrortest.Conversation) {
			c.FromClient(flow.SYN, "ask")
			c.FromServer(flow.SYN|flow.ACK, "")
			c.Ask("more")
		}, "turn ask; more more"},
		{"open-before", func(c *mirrortest.Conversation) {
			c.Ask("body")
			c.Answer("answer")
			c.Ask("ask")
		}, "turn body; turn ask"},
		{"open-before-the-server-is-seen-first", func(c *mirrortest.Conversation) {
			c.Answer("answer")
			c.Ask("ask")
		}, "turn ask"},
		{"addresses-used-again", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.Close()
			c.Client += 1000
			c.Open()
			c.Ask("two")
		}, "turn one; end false | turn two"},
		{"addresses-used-again-the-end-is-missing", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.Client -= 100000
			c.Open()
			c.Ask("two")
		}, "turn one; gap reused 0; end true | turn two"},
		{"addresses-used-again-end-and-syn-are-missing", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.Client -= 100000
			c.Server += 5000
			c.FromServer(flow.SYN|flow.ACK, "")
			c.FromClient(flow.ACK, "")
			c.Ask("two")
		}, "turn one; gap reused 0; end true | turn two"},
		{"addresses-used-again-the-beginning-is-missing", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.Close()
			c.Client += 1000
			c.Server += 5000
			c.FromClient(flow.ACK, "")
			c.Ask("two")
			c.Answer("answer")
			c.Ask("three")
		}, "turn one; end false | turn two; turn three"},
		{"addresses-used-again-the-servers-end-and-the-beginning-are-missing", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.FIN|flow.ACK, "one")
			c.Client += 1000
			c.Server += 5000
			c.Ask("two")
		}, "gap reused 3; end true | turn two"},
		{"addresses-used-again-the-servers-end-its-consent-and-the-first-bytes-are-missing", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.FIN|flow.ACK, "one")
			c.Client += 1000
			c.FromClient(flow.SYN, "")
			c.Server += 5000
			c.Client += 7
			c.Ask("two")
		}, "gap reused 3; end true | gap hole 7; more two"},
		{"addresses-used-again-after-a-reset-the-beginning-is-missing", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			c.FromServer(flow.RST|flow.ACK, "")
			c.Client += 1000
			c.Server += 5000
			c.Ask("two") // may be what was still on its way, until the server takes it
			c.Ask("three")
		}, "turn one; end true | turn three"},
		{"addresses-used-again-after-a-refusal-the-beginning-is-missing", func(c *mirrortest.Conversation) {
			c.FromClient(flow.SYN, "")
			c.FromServer(flow.RST|flow.ACK, "")
			c.Client += 1000
			c.FromServer(flow.ACK, "hello")
			c.Ask("one")
		}, "turn one"},
		{"sent-again-when-it-is-over", func(c *mirrortest.Conversation) {
			c.Open()
			c.FromClient(flow.FIN|flow.ACK, "one")
			c.FromServer(flow.FIN|flow.ACK, "")
			c.FromClient(flow.ACK, "")
			c.Client -= 4
			c.FromClient(flow.FIN|flow.ACK, "one")
			c.Client--
			c.FromClient(flow.ACK, "x") // a probe
			c.FromServer(flow.ACK, "")
		}, "turn one; end false"},
		{"a-syn-that-the-server-does-not-take", func(c *mirrortest.Conversation) {
			c.Open()
			c.Ask("one")
			next := c.Client
			c.Client += 77777
			c.FromClient(flow.SYN, "")
			c.Client = next
			c.FromServer(flow.ACK, "") // a challenge
			c.Ask("two")
		}, "turn one; more two"},
		{"cut-packet", func(c *mirrortest.Conversation) {
			c.Open()
			seg := flow.Segment{Flow: c.Flow, Seq: c.Client, Ack: c.Server, Flags: flow.ACK, Payload: []byte("head"), Cut: 6}
			c.Out(mirror.Packet{Time: c.Now, Data: mirrortest.Packet(seg), Wire: 50})
			c.Client += 10
			c.FromServer(flow.ACK, "")
			c.Ask("more")
		}, "turn head; gap hole 6; more more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := record(Config{})
			tt.play(mirrortest.New(client, server, r.Packet))
			r.want(t, tt.want)
		})
	}
}

// TestBothDirections follows what the server sends too.
func TestBothDirections(t *testing.T) {
	up, down := &tape{}, &tape{}
	a := New(Config{
		Server: func(a netip.AddrPort) bool { return a == server },
		Open:   func(flow.Flow, bool, time.Time) (Stream, Stream) { return up, down },
	})
	c := mirrortest.New(client, server, a.Packet)
	c.Open()
	c.Ask("ask")
	c.FromServer(flow.ACK, "one ")
	c.Server += 3
	c.FromServer(flow.ACK, "two")
	c.FromClient(flow.ACK, "")
	c.Close()
	if want := []string{"turn ask", "end false"}; !slices.Equal(up.events, want) {
		t.Errorf("client: got %q, want %q", up.events, want)
	}
	if want := []string{"more one ", "gap hole 3", "more two", "end false"}; !slices.Equal(down.events, want) {
		t.Errorf("server: got %q, want %q", down.events, want)
	}
}

func TestBounds(t *testing.T) {
	t.Run("flows", func(t *testing.T) {
		r := record(Config{MaxFlows: 2})
		for port := range uint16(3) {
			c := mirrortest.New(netip.AddrPortFrom(client.Addr(), port+1), server, r.Packet)
			c.Open()
			c.Ask("ask")
		}
		r.want(t, "turn ask; gap evicted 0; end true | turn ask | turn ask")
		if n := r.Stats().Flows; n != 2 {
			t.Errorf("%d flows, want 2", n)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		r := record(Config{MaxHeld: 2000})
		c := mirrortest.New(client, server, r.Packet)
		c.Open()
		c.FromClient(flow.ACK, strings.Repeat("x", 1400))
		c.FromClient(flow.ACK, strings.Repeat("x", 200))
		c.FromServer(flow.ACK, "")
		c.Ask("more")
		r.want(t, "gap too much 1600; more more")
	})
	t.Run("memory-of-those-that-are-over", func(t *testing.T) {
		r := record(Config{MaxFlows: 100})
		for port := range uint16(1000) {
			c := mirrortest.New(netip.AddrPortFrom(client.Addr(), port+1), server, r.Packet)
			c.Open()
			c.Ask("ask")
			c.Close()
		}
		if len(r.flows) > 100 || r.Stats().Flows != 0 {
			t.Errorf("%d remembered, %d followed", len(r.flows), r.Stats().Flows)
		}
		for _, tape := range r.tapes {
			if want := []string{"turn ask", "end false"}; !slices.Equal(tape.events, want) {
				t.Fatalf("got %q, want %q", tape.events, want)
			}
		}
	})
}

// TestForeignPackets are not of a mirrored server.
func TestForeignPackets(t *testing.T) {
	r := record(Config{})
	c := mirrortest.New(client, netip.MustParseAddrPort("192.0.2.99:8080"), r.Packet)
	c.Open()
	c.Ask("ask")
	r.Packet(mirror.Packet{Data: []byte("no packet")})
	if s := r.Stats(); s.Ignored != 6 || s.Packets != 6 || len(r.tapes) != 0 {
		t.Errorf("stats %+v, %d flows", s, len(r.tapes))
	}
}

// TestLost gives up what the capture has given up.
func TestLost(t *testing.T) {
	r := record(Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask("ask")
	c.FromClient(flow.ACK, "half")
	if !r.Lost(c.Flow) || r.Lost(c.Flow) {
		t.Error("the flow is not given up once")
	}
	r.want(t, "turn ask; gap hole 4; end true")
}

// What follows a loss on the addresses of a flow that is over is of another one, whose beginning is lost.
func TestLostBeginning(t *testing.T) {
	r := record(Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask("ask")
	c.Close()
	if r.Lost(c.Flow) {
		t.Error("a flow that is over is followed")
	}
	c.Client += 1 << 20
	c.Ask("more")
	if len(r.tapes) != 2 {
		t.Fatalf("%d flows, want 2", len(r.tapes))
	}
	if got, want := r.tapes[1].events, []string{"turn more"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Addresses are those of another flow if one that is over had them long ago, whatever the numbers.
func TestOverForAWhile(t *testing.T) {
	r := record(Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask("one")
	c.FromServer(flow.RST|flow.ACK, "")
	c.Now = c.Now.Add(overFor)
	c.Client += 3 << 30
	c.Ask("two")
	r.want(t, "turn one; end true | turn two")
}

// A client's number behind its FIN is no byte that is missing.
func TestLostBehindAFin(t *testing.T) {
	r := record(Config{})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.FromClient(flow.ACK|flow.FIN, "half")
	c.FromClient(flow.ACK, "")
	r.Lost(c.Flow)
	r.want(t, "gap hole 4; end true")
}

// FuzzAssembler feeds packets of anybody.
func FuzzAssembler(f *testing.F) {
	var seed bytes.Buffer
	c := mirrortest.New(client, server, func(p mirror.Packet) {
		seed.WriteByte(byte(len(p.Data)))
		seed.Write(p.Data)
	})
	c.Open()
	c.Ask("ask")
	c.Client -= 2
	c.Ask("again")
	c.Answer("answer")
	c.Close()
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		const maxHeld, maxFlows = 4096, 3
		r := record(Config{MaxHeld: maxHeld, MaxFlows: maxFlows})
		for len(in) > 0 {
			n := min(int(in[0])+1, len(in))
			r.Packet(mirror.Packet{Data: in[1:n]})
			in = in[n:]
			if len(r.flows) > maxFlows {
				t.Fatalf("%d flows", len(r.flows))
			}
			for _, c := range r.flows {
				c.client.check(t, maxHeld)
				c.server.check(t, maxHeld)
			}
		}
		r.Close()
		for _, tape := range r.tapes {
			for i, e := range tape.events {
				if strings.HasPrefix(e, "end") != (i == len(tape.events)-1) {
					t.Fatalf("the end is not the end: %q", tape.events)
				}
			}
		}
	})
}

// check says what is wrong in h.
func (h *half) check(t *testing.T, maxHeld int) {
	t.Helper()
	held, at := 0, h.next
	for _, s := range h.segs {
		if before(s.seq, at) || len(s.data) == 0 || before(h.last, s.end()) {
			t.Fatalf("segment %d+%d between %d and %d", s.seq, len(s.data), at, h.last)
		}
		at = s.end()
		held += len(s.data) + overhead
	}
	if held != h.held || held > maxHeld {
		t.Fatalf("%d bytes held, counted as %d, at most %d", held, h.held, maxHeld)
	}
}
