package netstack

import (
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/borrownet/borrownet/netstack/leaktest"
)

// TestLateAcceptEnds: an Accept that registers its endpoint when Close has given up waiting for it ends all the same.
func TestLateAcceptEnds(t *testing.T) {
	leaktest.Check(t)
	s, err := New(Config{Addrs: []netip.Addr{linkSrc}})
	if err != nil {
		t.Fatal(err)
	}
	if !s.join(&s.handshakes) { // an Accept begins
		t.Fatal("a new stack is closed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wq := new(waiter.Queue)
	ep, terr := s.gv.NewEndpoint(tcp.ProtocolNumber, header.IPv4ProtocolNumber, wq)
	if terr != nil {
		t.Fatal(terr)
	}
	entry, over := waiter.NewChannelEntry(waiter.EventHUp)
	wq.EventRegister(&entry)
	if terr := ep.Connect(toFullAddress(netip.AddrPortFrom(linkDst, 80))); terr == nil {
		t.Fatal("connected to nobody")
	}
	select {
	case <-over:
	case <-time.After(30 * time.Second):
		t.Error("its endpoint lives on")
	}
	ep.Close()
	s.handshakes.Done()
}
