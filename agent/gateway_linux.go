package agent

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// littleEndian tells how this host stores numbers.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// Gateways returns the next hops of the network namespace's routes: where pods
// hang on a bridge they are addresses of the node, on which the kubelet listens
// as on its others.
func Gateways() []netip.Addr {
	var out []netip.Addr
	for _, table := range []struct {
		path  string
		parse func(io.Reader) []netip.Addr
	}{{"/proc/net/route", gateways4}, {"/proc/net/ipv6_route", gateways6}} {
		f, err := os.Open(table.path)
		if err != nil {
			continue // no such family here
		}
		out = append(out, table.parse(f)...)
		f.Close()
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// gateways4 reads /proc/net/route: the third column is the next hop as the host
// stores the number.
func gateways4(r io.Reader) (out []netip.Addr) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 3 {
			continue
		}
		b, err := hex.DecodeString(f[2])
		if err != nil || len(b) != 4 {
			continue // the heading
		}
		if littleEndian {
			slices.Reverse(b)
		}
		if a := netip.AddrFrom4([4]byte(b)); !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}

// gateways6 reads /proc/net/ipv6_route: the fifth column is the next hop.
func gateways6(r io.Reader) (out []netip.Addr) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 5 {
			continue
		}
		b, err := hex.DecodeString(f[4])
		if err != nil || len(b) != 16 {
			continue
		}
		if a := netip.AddrFrom16([16]byte(b)); !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}
