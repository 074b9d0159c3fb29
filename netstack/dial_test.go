package netstack

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/borrownet/borrownet/netstack/flow"
)

// TestEarlyRefusal: an ICMPv6 error that comes before its dial's flow is known is not lost: the next one would come with the
// next SYN, a second later.
func TestEarlyRefusal(t *testing.T) {
	f := flow.Flow{
		Proto: flow.TCP, Src: netip.MustParseAddrPort("[2001:db8::1]:4000"), Dst: netip.MustParseAddrPort("[2001:db8::2]:80"),
	}
	unreachable := flow.Packet{
		Flow: flow.Flow{Proto: flow.ICMPv6}, ICMPType: uint8(header.ICMPv6DstUnreachable), ICMPCode: uint8(header.ICMPv6AddressUnreachable), Inner: &f,
	}
	refusal := func(c <-chan error) error {
		select {
		case err := <-c:
			return err
		default:
			return nil
		}
	}
	var d pendingDials
	d.begin() // another one
	d.begin()
	d.heed(unreachable)
	d.begun()
	if err := refusal(d.add(f)); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a dial whose refusal came first gets %v, want EHOSTUNREACH", err)
	}
	d.remove(f)
	d.begun()
	if err := refusal(d.add(f)); err != nil || len(d.early) != 0 {
		t.Errorf("a later dial gets %v, and %d errors are kept", err, len(d.early))
	}
	d.remove(f)
	d.heed(unreachable) // nobody dials
	if len(d.early) != 0 {
		t.Errorf("%d errors are kept for nobody", len(d.early))
	}
	d.begin()
	for port := range uint16(2 * maxEarly) {
		other := f
		other.Src = netip.AddrPortFrom(f.Src.Addr(), port)
		unreachable.Inner = &other
		d.heed(unreachable)
	}
	if len(d.early) != maxEarly {
		t.Errorf("%d errors are kept, want %d at most", len(d.early), maxEarly)
	}
}
