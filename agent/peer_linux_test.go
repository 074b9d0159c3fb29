package agent

import (
	"net"
	"net/netip"
	"os"
	"testing"
)

// TestAcceptedBy finds the other end of connections that stay in this network
// namespace, as those do that a rule redirects, of both families, and also when
// it is closed already.
func TestAcceptedBy(t *testing.T) {
	for _, tt := range []struct{ name, listen, dial string }{
		{"ipv4", "127.0.0.1:0", "127.0.0.1"},
		{"ipv4_on_both", ":0", "127.0.0.1"},
		{"ipv6", "[::1]:0", "::1"},
		{"ipv6_on_both", ":0", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", tt.listen)
			if err != nil {
				t.Skipf("no such address here: %v", err)
			}
			defer ln.Close()
			want := netip.AddrPortFrom(netip.MustParseAddr(tt.dial), uint16(ln.Addr().(*net.TCPAddr).Port))
			c, err := net.Dial("tcp", want.String())
			if err != nil {
				t.Skipf("no such address here: %v", err)
			}
			defer c.Close()
			accepted, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			at, uid, err := acceptedBy(localAddr(c))
			if err != nil || at != want || uid != int64(os.Getuid()) {
				t.Errorf("accepted by %v of uid %d, %v; want %v of %d", at, uid, err, want, os.Getuid())
			}
			accepted.Close() // sends a FIN: c's end stays open
			at, uid, err = acceptedBy(localAddr(c))
			if err != nil || at != want || uid != -1 {
				t.Errorf("closed: accepted by %v of uid %d, %v; want %v of -1", at, uid, err, want)
			}
		})
	}
}

func TestAcceptedByNobody(t *testing.T) {
	// Nothing is connected from a listener's address.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at, uid, err := acceptedBy(netip.MustParseAddrPort(ln.Addr().String()))
	if err != nil || at.IsValid() || uid != -1 {
		t.Errorf("accepted by %v of uid %d, %v; want nobody", at, uid, err)
	}
}
