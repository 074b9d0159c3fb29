package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/borrownet/borrownet/netstack/flow"
)

var (
	pod4    = netip.MustParseAddr("198.51.100.7")
	pod6    = netip.MustParseAddr("2001:db8::7")
	client4 = netip.MustParseAddr("192.0.2.9")
	client6 = netip.MustParseAddr("2001:db8:1::9")
)

func testSpec() Spec {
	return Spec{Loopback: []uint16{8080}, Pod: []uint16{9090, 9091}, Addrs: []netip.Addr{pod4, pod6}}
}

// packet builds a TCP segment.
func packet(src, dst netip.AddrPort, flags uint8, seq uint32, payload int) []byte {
	tcp := make([]byte, 20+payload)
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = 5<<4, flags
	if src.Addr().Is4() {
		ip := make([]byte, 20, 20+len(tcp))
		ip[0], ip[9] = 0x45, protocolTCP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
		copy(ip[12:], src.Addr().AsSlice())
		copy(ip[16:], dst.Addr().AsSlice())
		return append(ip, tcp...)
	}
	ip := make([]byte, 40, 40+len(tcp))
	ip[0], ip[6] = 0x60, protocolTCP
	binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	copy(ip[8:], src.Addr().AsSlice())
	copy(ip[24:], dst.Addr().AsSlice())
	return append(ip, tcp...)
}

func vm(t testing.TB, spec Spec, iface uint8) *bpf.VM {
	t.Helper()
	whole, watched := newPlaces(spec).rule(iface)
	raw, err := filter(spec, iface, whole, watched)
	if err != nil {
		t.Fatal(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter cannot be disassembled")
	}
	m, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func port(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }

func TestFilter(t *testing.T) {
	lo4, lo6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	proxy := netip.MustParseAddr("127.0.0.6")
	udp := packet(port(client4, 4000), port(pod4, 9090), 0, 0, 0)
	udp[9] = 17
	fragment := packet(port(client4, 4000), port(pod4, 9090), 0, 0, 0)
	fragment[7] = 3
	options := packet(port(client4, 4000), port(pod4, 9090), flow.ACK, 1, 10)
	options[0] = 0x46
	options = append(options[:20:20], append([]byte{1, 1, 1, 1}, options[20:]...)...)
	for _, tt := range []struct {
		name  string
		iface uint8
		pkt   []byte
		want  int
	}{
		{"request", Pod, packet(port(client4, 4000), port(pod4, 9090), flow.ACK, 1, 300), whole},
		{"answer", Pod, packet(port(pod4, 9091), port(client4, 4000), flow.ACK, 1, 300), headers},
		{"request6", Pod, packet(port(client6, 4000), port(pod6, 9091), flow.SYN, 1, 0), whole},
		{"answer6", Pod, packet(port(pod6, 9090), port(client6, 4000), flow.ACK, 1, 300), headers},
		{"ip_options", Pod, options, whole},
		{"watched", Pod, packet(port(client4, 4000), port(pod4, 8080), flow.ACK, 1, 0), 0},
		{"watched_begins", Pod, packet(port(client4, 4000), port(pod4, 8080), flow.SYN, 1, 0), whole},
		{"watched_begins6", Pod, packet(port(client6, 4000), port(pod6, 8080), flow.SYN, 1, 0), whole},
		{"watched_answers", Pod, packet(port(pod4, 8080), port(client4, 4000), flow.SYN|flow.ACK, 1, 0), 0},
		{"watched_answers6", Pod, packet(port(pod6, 8080), port(client6, 4000), flow.SYN|flow.ACK, 1, 0), 0},
		{"other_port", Pod, packet(port(client4, 4000), port(pod4, 9092), flow.ACK, 1, 0), 0},
		{"pods_own_call", Pod, packet(port(pod4, 4000), port(client4, 9090), flow.SYN, 1, 0), 0},
		{"answer_to_it", Pod, packet(port(client4, 9090), port(pod4, 4000), flow.ACK, 1, 0), 0},
		{"pods_own_call6", Pod, packet(port(pod6, 4000), port(client6, 9090), flow.SYN, 1, 0), 0},
		{"loopback_on_the_pods_interface", Pod, packet(port(lo4, 4000), port(lo4, 9090), flow.SYN, 1, 0), 0},
		{"udp", Pod, udp, 0},
		{"fragment", Pod, fragment, 0},
		{"arp", Pod, []byte{0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0},
		{"short", Pod, []byte{0x45}, 0},
		{"proxy", Loopback, packet(port(proxy, 4000), port(pod4, 8080), flow.ACK, 1, 9), whole},
		{"to_proxy", Loopback, packet(port(pod4, 8080), port(proxy, 4000), flow.ACK, 1, 9), headers},
		{"localhost", Loopback, packet(port(lo4, 4000), port(lo4, 8080), flow.ACK, 1, 9), whole},
		{"localhost6", Loopback, packet(port(lo6, 4000), port(lo6, 8080), flow.ACK, 1, 9), whole},
		{"from_localhost6", Loopback, packet(port(lo6, 8080), port(lo6, 4000), flow.ACK, 1, 9), headers},
		{"other_on_loopback", Loopback, packet(port(lo4, 4000), port(lo4, 9090), flow.ACK, 1, 9), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := vm(t, testSpec(), tt.iface).Run(tt.pkt)
			if err != nil || got != tt.want {
				t.Errorf("%d bytes, %v, want %d", got, err, tt.want)
			}
		})
	}
}

func TestFilterTakesWholeAnswers(t *testing.T) {
	spec := testSpec()
	spec.Responses = true
	pkt := packet(port(pod4, 9091), port(client4, 4000), flow.ACK, 1, 300)
	if got, err := vm(t, spec, Pod).Run(pkt); err != nil || got != whole {
		t.Errorf("%d bytes, %v", got, err)
	}
}

// A filter with all that it may hold can be assembled, and finds the last of each.
func TestFilterBounds(t *testing.T) {
	spec := Spec{}
	for i := range maxPorts {
		spec.Loopback = append(spec.Loopback, uint16(9000+i))
	}
	for i := range maxAddrs {
		spec.Addrs = append(spec.Addrs, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), netip.AddrFrom16([16]byte{0: 0x20, 15: byte(i)}))
	}
	m := vm(t, spec, Loopback)
	last := spec.Addrs[len(spec.Addrs)-2:]
	for _, server := range last {
		if got, err := m.Run(packet(port(server, 1), port(server, 9000+maxPorts-1), 0, 1, 1)); err != nil || got != whole {
			t.Errorf("%v: %d, %v", server, got, err)
		}
	}
	for _, more := range []Spec{
		{Loopback: append(spec.Loopback, 1), Addrs: spec.Addrs},
		{Loopback: spec.Loopback, Addrs: append(spec.Addrs, pod4)},
	} {
		if _, err := filter(more, Loopback, more.Loopback, nil); err == nil {
			t.Errorf("no error with %d ports and %d addresses", len(more.Loopback), len(more.Addrs))
		}
	}
}

// What the filter lets pass is what the queue can attribute, and nothing else.
func FuzzFilterAgreesWithParse(f *testing.F) {
	f.Add(true, packet(port(client4, 4000), port(pod4, 9090), flow.ACK, 1, 3))
	f.Add(false, packet(port(pod6, 8080), port(client6, 4000), flow.ACK, 1, 3))
	f.Add(true, packet(port(pod4, 9090), port(pod4, 9091), flow.ACK, 1, 3))
	spec := testSpec()
	spec.Responses = true
	machines := map[uint8]*bpf.VM{Loopback: vm(f, spec, Loopback), Pod: vm(f, spec, Pod)}
	f.Fuzz(func(t *testing.T, onPod bool, pkt []byte) {
		iface := Loopback
		if onPod {
			iface = Pod
		}
		n, err := machines[iface].Run(pkt)
		if err != nil {
			t.Fatal(err)
		}
		s, ok := parse(Packet{Iface: iface, Data: pkt, Wire: len(pkt)}, spec.server)
		whole := slices.Contains(spec.Pod, s.server.Port()) == onPod
		if ok && n == 0 && (whole || s.opens()) {
			t.Errorf("%+v does not pass the filter", s)
		}
		if ok && s.payload < 0 {
			t.Errorf("payload of %d bytes", s.payload)
		}
	})
}
