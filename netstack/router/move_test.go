package router

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/flow"
)

// TestMove: a session that goes on at another pod has that pod's addresses, and nothing
// of what was open before.
func TestMove(t *testing.T) {
	r := newTestRouter()
	const (
		next = "192.0.2.99:61001"
		near = "203.0.113.200:5432"
	)
	out := tcpPacket(app, svc, syn)
	if v := r.FromSession(out); v != ToTunnel {
		t.Fatalf("open: %v", v)
	}
	// A container's flow with the laptop's own network has its other side.
	if v := r.FromContainer(tcpPacket(inside, near, syn)); v != ToStack {
		t.Fatalf("open to the laptop's network: %v", v)
	}
	open := r.Forget()
	want := []flow.Flow{{Proto: flow.TCP, Src: netip.MustParseAddrPort(app), Dst: netip.MustParseAddrPort(svc)}}
	if diff := cmp.Diff(want, open, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("open flows (-want +got)\n%s", diff)
	}
	if v := r.FromTunnel(tcpPacket(svc, app, synAck)); v != Drop {
		t.Errorf("an answer to a forgotten flow: %v", v)
	}
	if v := r.FromStack(tcpPacket(near, inside, ack)); v != ToContainer {
		t.Errorf("a packet of the flow that goes on: %v", v)
	}
	if n := r.Stats().Flows; n != 1 {
		t.Errorf("%d flows are left", n)
	}
	r.SetSession([]netip.Addr{netip.MustParseAddrPort(next).Addr()})
	if v := r.FromSession(out); v != Drop {
		t.Errorf("a packet from the old address: %v", v)
	}
	if v := r.FromSession(tcpPacket(next, svc, syn)); v != ToTunnel {
		t.Errorf("a packet from the new address: %v", v)
	}
	if v := r.FromTunnel(tcpPacket(svc, next, synAck)); v != ToSession {
		t.Errorf("its answer: %v", v)
	}
}
