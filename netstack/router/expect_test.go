package router

import (
	"testing"

	"github.com/borrownet/borrownet/netstack/flow"
)

// TestExpect: the netstack opens flows to programs of the session and of containers on
// the same port, and each of them gets what is meant for it.
func TestExpect(t *testing.T) {
	const (
		caller  = "198.51.100.9:50000" // a client whose request is copied
		unnamed = "192.0.0.5:50000"
		server  = "192.0.2.10:8080"
	)
	r := newTestRouter()
	play := func(steps ...step) {
		t.Helper()
		for i, s := range steps {
			if got := s.run(r); got != s.want {
				t.Errorf("step %d: got %v, want %v", i, got, s.want)
			}
		}
	}
	play(stk(tcpPacket(caller, server, syn), ToSession), sess(tcpPacket(server, caller, flow.RST|ack), ToStack)) // nobody listens there
	if !r.Expect(ap(caller), ap(server), ToContainer) {
		t.Fatal("the netstack's own flow is in its way")
	}
	play(
		stk(tcpPacket(caller, server, syn), ToContainer),
		cont(tcpPacket(server, caller, synAck), ToStack),
		sessDrop(tcpPacket(server, caller, synAck), "conflict"),
		tunDrop(tcpPacket(caller, server, ack), "unsolicited"),
		stk(tcpPacket(caller, server, ack), ToContainer),
		cont(tcpPacket(server, caller, flow.FIN|ack), ToStack),
		stk(tcpPacket(caller, server, flow.FIN|ack), ToContainer),
	)
	if !r.Expect(ap(caller), ap(server), ToSession) {
		t.Fatal("the flow cannot go back to the session")
	}
	play(stk(tcpPacket(caller, server, syn), ToSession), sess(tcpPacket(server, caller, synAck), ToStack), contDrop(tcpPacket(server, caller, synAck), "conflict"))

	// Who cannot be named in a container comes from an address that is nobody's.
	play(stkDrop(tcpPacket(unnamed, server, syn), "source"), contDrop(tcpPacket(server, unnamed, synAck), "control"))
	if !r.Expect(ap(unnamed), ap(server), ToContainer) {
		t.Fatal("not from nobody's address")
	}
	play(
		stk(tcpPacket(unnamed, server, syn), ToContainer), cont(tcpPacket(server, unnamed, synAck), ToStack),
		tunDrop(tcpPacket(unnamed, server, ack), "control"),
	)

	// A program's own flow stays its own.
	play(sess(tcpPacket(app, svc, syn), ToTunnel), cont(tcpPacket(inside, svc, syn), ToTunnel))
	if r.Expect(ap(svc), ap(app), ToContainer) || r.Expect(ap(svc), ap(inside), ToSession) {
		t.Error("a program's flow is taken from it")
	}
	play(tun(tcpPacket(svc, app, synAck), ToSession), tun(tcpPacket(svc, inside, synAck), ToContainer))
}
