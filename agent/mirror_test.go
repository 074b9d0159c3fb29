package agent_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/capture"
	"github.com/borrownet/borrownet/agent/wire"
)

// tapped is a world whose flows can be captured: feed makes their packets.
type tapped struct {
	*agenttest.World
	refuse error
	feed   func(ctx context.Context, push func(capture.Packet), lost func(uint64))
	spec   atomic.Pointer[capture.Spec] // of the last capture
	open   atomic.Int32                 // captures that run
}

func (w *tapped) Capture(spec capture.Spec) (agent.Capture, error) {
	w.spec.Store(&spec)
	if w.refuse != nil {
		return nil, w.refuse
	}
	return &tap{w}, nil
}

type tap struct{ *tapped }

func (t *tap) Run(ctx context.Context, push func(capture.Packet), lost func(uint64)) error {
	t.open.Add(1)
	defer t.open.Add(-1)
	if t.feed != nil {
		t.feed(ctx, push, lost)
	}
	<-ctx.Done()
	return nil
}

func (t *tap) Interfaces() []string { return []string{"lo", "eth0"} }
func (t *tap) Places() []capture.Place {
	var out []capture.Place
	for _, p := range t.spec.Load().Pod {
		out = append(out, capture.Place{Port: p, On: [2]bool{capture.Pod: true}})
	}
	for _, p := range t.spec.Load().Loopback {
		out = append(out, capture.Place{Port: p, On: [2]bool{capture.Loopback: true}})
	}
	return out
}
func (t *tap) Counters() capture.Counters { return capture.Counters{} }

// segment is a TCP segment from a client's port to port 8080 of the pod.
func segment(from uint16, seq uint32, payload int) capture.Packet {
	b := make([]byte, 40+payload)
	b[0], b[9] = 0x45, 6
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], server.AsSlice())
	copy(b[16:], podIP.AsSlice())
	binary.BigEndian.PutUint16(b[20:], from)
	binary.BigEndian.PutUint16(b[22:], 8080)
	binary.BigEndian.PutUint32(b[24:], seq)
	b[32], b[33] = 5<<4, 0x10
	return capture.Packet{Time: time.Unix(1, 2), Iface: capture.Pod, Data: b, Wire: len(b)}
}

// captureClient asks an agent for captures.
func captureClient(t *testing.T, c *agenttest.Client) *http.Client {
	t.Helper()
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.Stack.DialTCP(ctx, netip.AddrPortFrom(wire.ClientAddr, 0), netip.AddrPortFrom(wire.AgentAddr, wire.CapturePort))
		},
	}}
}

func startCapture(t *testing.T, client *http.Client, query string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+wire.PathCapture+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestCaptureStream(t *testing.T) {
	w := &tapped{World: newWorld(), feed: func(_ context.Context, push func(capture.Packet), lost func(uint64)) {
		push(segment(4000, 1, 100))
		lost(3)
		push(segment(4001, 1, 200))
	}}
	_, c, _ := start(t, func(cfg *agent.Config) { cfg.Network = w })
	resp := startCapture(t, captureClient(t, c), "?pod=8080&lo=9090&responses=full")
	stream := wire.NewCaptureReader(resp.Body)
	first, err := stream.Next()
	if err != nil || first.Stats == nil || len(first.Stats.Ports) != 2 || !first.Stats.Ports[0].Pod || !first.Stats.Ports[1].Loopback {
		t.Fatalf("first record %+v, %v, want counters with both ports", first, err)
	}
	var got []string
	for len(got) < 3 {
		r, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case r.Stats != nil:
		case r.Data != nil:
			got = append(got, fmt.Sprintf("packet of %d on %d at %d", len(r.Data), r.Iface, r.Time.UnixNano()))
		default:
			got = append(got, fmt.Sprintf("lost %d of %v", r.Packets, r.Client))
		}
	}
	if want := "[packet of 140 on 1 at 1000000002 lost 3 of invalid AddrPort packet of 240 on 1 at 1000000002]"; fmt.Sprint(got) != want {
		t.Errorf("got %v\nwant %v", got, want)
	}
	spec := w.spec.Load()
	if fmt.Sprint(spec.Pod, spec.Loopback, spec.Responses, spec.Addrs) != "[8080] [9090] true [203.0.113.7 2001:db8::7]" {
		t.Errorf("spec %+v", spec)
	}
	resp.Body.Close()
	waitUntil(t, "the capture ends with its client", func() bool { return w.open.Load() == 0 })
}

// A client that does not take what it asked for costs whole flows, all of them counted, and no more memory.
func TestCaptureOfASlowClient(t *testing.T) {
	const flows, each = 40, 100
	fed := make(chan struct{})
	w := &tapped{World: newWorld(), feed: func(ctx context.Context, push func(capture.Packet), _ func(uint64)) {
		for i := range uint32(each) {
			for f := range uint16(flows) {
				push(segment(4000+f, i*20<<10, 20<<10))
			}
		}
		close(fed)
	}}
	_, c, _ := start(t, func(cfg *agent.Config) { cfg.Network = w; cfg.Memory = agent.DefaultMemory * 2 })
	resp := startCapture(t, captureClient(t, c), "?pod=8080")
	<-fed // 80 MB, which fit neither the queue nor the tunnel
	var packets, bytes, lostPackets, lostBytes uint64
	stream := wire.NewCaptureReader(resp.Body)
	for packets+lostPackets < flows*each {
		r, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case r.Stats != nil:
		case r.Data != nil:
			packets++
			bytes += uint64(len(r.Data) - 40)
		default:
			lostPackets += r.Packets
			lostBytes += r.Bytes
		}
	}
	if lostPackets == 0 || packets == 0 {
		t.Errorf("%d packets taken, %d lost: the test shows nothing", packets, lostPackets)
	}
	if packets+lostPackets != flows*each || bytes+lostBytes != flows*each*20<<10 {
		t.Errorf("%d packets taken and %d lost of %d; %d bytes and %d", packets, lostPackets, flows*each, bytes, lostBytes)
	}
}

func TestCaptureRefused(t *testing.T) {
	for _, tt := range []struct {
		name, query string
		network     agent.Network
		code        int
		says        string
	}{
		{"not_permitted", "?pod=8080", &tapped{World: newWorld(), refuse: fmt.Errorf("%w: no CAP_NET_RAW", capture.ErrNotPermitted)}, 403, "no CAP_NET_RAW"},
		{"failed", "?pod=8080", &tapped{World: newWorld(), refuse: errors.New("no interface")}, 500, "no interface"},
		{"cannot", "?pod=8080", newWorld(), 501, "cannot be captured"},
		{"no_port", "", &tapped{World: newWorld()}, 400, "0 ports"},
		{"bad_port", "?lo=0", &tapped{World: newWorld()}, 400, `"0" is no port`},
		{"many_ports", "?pod=1" + strings.Repeat("&pod=1", 16), &tapped{World: newWorld()}, 400, "17 ports"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, c, _ := start(t, func(cfg *agent.Config) { cfg.Network = tt.network })
			resp := startCapture(t, captureClient(t, c), tt.query)
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.code || !strings.Contains(string(text), tt.says) {
				t.Errorf("%s: %q, %v, want %d and %q", resp.Status, text, err, tt.code, tt.says)
			}
		})
	}
}

func TestCapturesAreBounded(t *testing.T) {
	w := &tapped{World: newWorld()}
	_, c, _ := start(t, func(cfg *agent.Config) { cfg.Network = w })
	client := captureClient(t, c)
	for range 3 {
		if resp := startCapture(t, client, "?pod=8080"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	if resp := startCapture(t, client, "?pod=8080"); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a fourth capture: %s", resp.Status)
	}
}

// Programs of a session cannot ask for a capture: it is the client's own stack's.
func TestProgramsCannotCapture(t *testing.T) {
	_, c, _ := start(t, func(cfg *agent.Config) { cfg.Network = &tapped{World: newWorld()} })
	if conn, err := dialErr(c, podIP, at(wire.AgentAddr, wire.CapturePort), 2*time.Second); err == nil {
		conn.Close()
		t.Error("a program reached the port of captures")
	}
}
