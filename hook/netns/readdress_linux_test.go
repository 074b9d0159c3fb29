package netns

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReaddress changes the addresses under sockets in every state.
func TestReaddress(t *testing.T) {
	next4, next6 := netip.MustParseAddr("198.51.100.70"), netip.MustParseAddr("2001:db8::70")
	for _, tt := range []struct {
		name      string
		old, new4 []netip.Addr
	}{
		{"both", []netip.Addr{pod4, pod6}, []netip.Addr{next4, next6}},
		{"gains_v6", []netip.Addr{pod4}, []netip.Addr{next4, next6}},
		{"loses_v6", []netip.Addr{pod4, pod6}, []netip.Addr{next4}},
		{"same", []netip.Addr{pod4}, []netip.Addr{pod4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, c := start(t, tt.old...)
			connected := socket(t, c, unix.AF_INET, unix.SOCK_DGRAM)
			if err := unix.Connect(connected, sockaddr(netip.AddrPortFrom(far4, 53))); err != nil {
				t.Fatal(err)
			}
			wildcard := socket(t, c, unix.AF_INET, unix.SOCK_DGRAM)
			if err := unix.Bind(wildcard, &unix.SockaddrInet4{Port: 5000}); err != nil {
				t.Fatal(err)
			}
			listener := socket(t, c, unix.AF_INET, unix.SOCK_STREAM)
			if err := errors.Join(unix.Bind(listener, &unix.SockaddrInet4{Port: 8080}), unix.Listen(listener, 1)); err != nil {
				t.Fatal(err)
			}
			if err := h.Readdress(t.Context(), tt.new4); err != nil {
				t.Fatal(err)
			}
			if _, _, err := unix.Recvfrom(connected, make([]byte, 1), unix.MSG_DONTWAIT); (tt.name != "same") != errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("connected socket: %v", err)
			}
			for _, a := range tt.new4 {
				dst := netip.AddrPortFrom(far4, 9)
				if a.Is6() {
					dst = netip.AddrPortFrom(far6, 9)
				}
				fd := wildcard
				if a.Is6() {
					fd = socket(t, c, unix.AF_INET6, unix.SOCK_DGRAM)
				}
				if err := unix.Sendto(fd, []byte("after"), 0, sockaddr(dst)); err != nil {
					t.Fatal(err)
				}
				if p := expect(t, h, "datagram to "+dst.String(), func(p packet) bool { return p.dst == dst }); p.src.Addr() != a {
					t.Errorf("it comes from %v, want %v", p.src, a)
				}
			}
			if on, err := unix.GetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on != 1 {
				t.Errorf("the listener does not listen any more: %v", err)
			}
			if err := h.Readdress(t.Context(), nil); err == nil {
				t.Error("no address at all is taken")
			}
		})
	}
}
