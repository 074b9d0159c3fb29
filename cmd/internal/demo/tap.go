package demo

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/capture"
	"github.com/borrownet/borrownet/netstack/flow"
)

// headBytes is what is captured of the packets of servers, as in a real pod.
const headBytes = 128

// A tap copies the packets of a pod's inbound flows, as a packet socket on the interface of a real pod does.
type tap struct {
	pod  *pod
	spec capture.Spec

	mu      sync.Mutex
	push    func(capture.Packet) // nil until Run
	waiting []capture.Packet     // for Run
}

var _ agent.Capturer = (*pod)(nil)

// Capture implements agent.Capturer.
func (p *pod) Capture(spec capture.Spec) (agent.Capture, error) {
	t := &tap{pod: p, spec: spec}
	e := p.ether
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taps = append(slices.Clone(e.taps), t)
	return t, nil
}

// Run implements agent.Capture. Nothing is ever lost here.
func (t *tap) Run(ctx context.Context, push func(capture.Packet), _ func(uint64)) error {
	t.mu.Lock()
	for _, p := range t.waiting {
		push(p)
	}
	t.push, t.waiting = push, nil
	t.mu.Unlock()
	<-ctx.Done()
	e := t.pod.ether
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taps = slices.DeleteFunc(slices.Clone(e.taps), func(other *tap) bool { return other == t })
	return nil
}

// hand hands a packet to Run, or keeps it until there is one.
func (t *tap) hand(p capture.Packet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.push == nil {
		t.waiting = append(t.waiting, p)
		return
	}
	t.push(p)
}

// Interfaces implements agent.Capture.
func (t *tap) Interfaces() []string { return []string{"lo", "eth0"} }

// Places implements agent.Capture: the only interface of a pod is its own.
func (t *tap) Places() []capture.Place {
	var out []capture.Place
	for _, port := range slices.Concat(t.spec.Pod, t.spec.Loopback) {
		out = append(out, capture.Place{Port: port, On: [2]bool{capture.Pod: true}})
	}
	return out
}

// Counters implements agent.Capture: there is no kernel.
func (t *tap) Counters() capture.Counters { return capture.Counters{} }

// tapped returns the taps that there are now.
func (e *ether) tapped() []*tap {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.taps
}

// see copies pkt if it is one of the flows that are captured. What a Service's address was sent has the pod's address in
// the copy, as it has in a pod.
func (t *tap) see(pkt []byte) {
	p, err := flow.Parse(pkt)
	if err != nil || p.Flow.Proto != flow.TCP {
		return
	}
	src, dst := p.Flow.Src, p.Flow.Dst
	request := t.captures(dst)
	if !request && !t.captures(src) {
		return
	}
	out := capture.Packet{Time: time.Now(), Iface: capture.Pod, Wire: len(pkt), Data: bytes.Clone(pkt)}
	at, server := addrOffset(pkt, request), dst.Addr()
	if !request {
		server = src.Addr()
		if !t.spec.Responses {
			out.Data = out.Data[:min(len(pkt), headBytes)]
		}
	}
	if slices.Contains(t.pod.services, server) {
		copy(out.Data[at:], t.pod.source(server).Addr().AsSlice())
	}
	t.hand(out)
}

// captures reports whether server is one that is captured.
func (t *tap) captures(server netip.AddrPort) bool {
	return slices.Contains(slices.Concat(t.spec.Pod, t.spec.Loopback), server.Port()) &&
		slices.Contains(slices.Concat(t.pod.addrs, t.pod.services), server.Addr())
}

// addrOffset is where an IP packet has its destination, or its source.
func addrOffset(pkt []byte, destination bool) int {
	switch v4 := pkt[0]>>4 == 4; {
	case v4 && destination:
		return 16
	case v4:
		return 12
	case destination:
		return 24
	}
	return 8
}
