package flow_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/flow"
)

var (
	src4, dst4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// ip4 returns an IPv4 packet. fragment is the flags and offset field.
func ip4(proto flow.Proto, options []byte, fragment uint16, payload []byte) []byte {
	p := make([]byte, 20, 20+len(options)+len(payload))
	p[0] = 4<<4 | byte((20+len(options))/4)
	p[8], p[9] = 64, byte(proto)
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(p[6:], fragment)
	copy(p[12:], src4.AsSlice())
	copy(p[16:], dst4.AsSlice())
	return append(append(p, options...), payload...)
}

// ip6 returns an IPv6 packet.
func ip6(next byte, payload []byte) []byte {
	p := make([]byte, 40, 40+len(payload))
	p[0], p[6], p[7] = 6<<4, next, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], src6.AsSlice())
	copy(p[24:], dst6.AsSlice())
	return append(p, payload...)
}

func ports(src, dst uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src), dst)
}

func tcp(src, dst uint16, flags byte, options, payload string) []byte {
	h := append(ports(src, dst), make([]byte, 16)...)
	h[12], h[13] = byte((20+len(options))/4)<<4, flags
	return append(append(h, options...), payload...)
}

func udp(src, dst uint16, payload string) []byte {
	h := binary.BigEndian.AppendUint16(ports(src, dst), uint16(8+len(payload)))
	return append(append(h, 0, 0), payload...)
}

func icmp(kind, code byte, rest uint32, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest), payload...)
}

// ext returns an IPv6 extension header of 8 bytes and what follows it.
func ext(next byte, rest []byte) []byte {
	return append([]byte{next, 0, 0, 0, 0, 0, 0, 0}, rest...)
}

func flow4(p flow.Proto, src, dst uint16) flow.Flow {
	return flow.Flow{Proto: p, Src: netip.AddrPortFrom(src4, src), Dst: netip.AddrPortFrom(dst4, dst)}
}

func flow6(p flow.Proto, src, dst uint16) flow.Flow {
	return flow.Flow{Proto: p, Src: netip.AddrPortFrom(src6, src), Dst: netip.AddrPortFrom(dst6, dst)}
}

type parseTest struct {
	name string
	pkt  []byte
	want flow.Packet
}

var parseTests = []parseTest{
	{"tcp4", ip4(flow.TCP, nil, 0, tcp(1, 2, flow.SYN, "", "hi")),
		flow.Packet{Flow: flow4(flow.TCP, 1, 2), TCPFlags: flow.SYN, Payload: []byte("hi")}},
	{"tcp4-options", ip4(flow.TCP, make([]byte, 40), 0, tcp(1, 2, flow.ACK|flow.FIN, "\x01\x01\x01\x01", "")),
		flow.Packet{Flow: flow4(flow.TCP, 1, 2), TCPFlags: flow.ACK | flow.FIN, Payload: []byte{}}},
	{"tcp4-dont-fragment", ip4(flow.TCP, nil, 0x4000, tcp(1, 2, flow.RST, "", "")),
		flow.Packet{Flow: flow4(flow.TCP, 1, 2), TCPFlags: flow.RST, Payload: []byte{}}},
	{"tcp4-padded", append(ip4(flow.TCP, nil, 0, tcp(1, 2, flow.ACK, "", "x")), 0, 0, 0),
		flow.Packet{Flow: flow4(flow.TCP, 1, 2), TCPFlags: flow.ACK, Payload: []byte("x")}},
	{"udp4", ip4(flow.UDP, nil, 0, udp(53, 5353, "q")),
		flow.Packet{Flow: flow4(flow.UDP, 53, 5353), Payload: []byte("q")}},
	{"udp4-first-fragment", ip4(flow.UDP, nil, 0x2000, udp(1, 2, "0123456789")[:12]),
		flow.Packet{Flow: flow4(flow.UDP, 1, 2), Payload: []byte("0123")}},
	{"udp4-later-fragment", ip4(flow.UDP, nil, 0x2001, []byte("rest")),
		flow.Packet{Flow: flow4(flow.UDP, 0, 0), Fragment: true, Payload: []byte("rest")}},
	{"udp4-short-length", ip4(flow.UDP, nil, 0, append(udp(1, 2, "x"), "more"...)),
		flow.Packet{Flow: flow4(flow.UDP, 1, 2), Payload: []byte("x")}},
	{"echo4", ip4(flow.ICMP, nil, 0, icmp(8, 0, 0x1234_0001, []byte("ping"))),
		flow.Packet{Flow: flow4(flow.ICMP, 0x1234, 0x1234), ICMPType: 8, Payload: []byte("ping")}},
	{"unreachable4", ip4(flow.ICMP, nil, 0, icmp(3, 1, 0, ip4(flow.TCP, nil, 0, tcp(1, 2, flow.SYN, "", ""))[:28])),
		flow.Packet{Flow: flow4(flow.ICMP, 0, 0), ICMPType: 3, ICMPCode: 1, Inner: new(flow4(flow.TCP, 1, 2)),
			Payload: ip4(flow.TCP, nil, 0, tcp(1, 2, flow.SYN, "", ""))[:28]}},
	{"time-exceeded4-echo", ip4(flow.ICMP, nil, 0, icmp(11, 0, 0, ip4(flow.ICMP, nil, 0, icmp(8, 0, 7<<16, nil)))),
		flow.Packet{Flow: flow4(flow.ICMP, 0, 0), ICMPType: 11, Inner: new(flow4(flow.ICMP, 7, 7)),
			Payload: ip4(flow.ICMP, nil, 0, icmp(8, 0, 7<<16, nil))}},
	{"unreachable4-quotes-nothing", ip4(flow.ICMP, nil, 0, icmp(3, 1, 0, nil)),
		flow.Packet{Flow: flow4(flow.ICMP, 0, 0), ICMPType: 3, ICMPCode: 1, Payload: []byte{}}},
	{"unreachable4-quotes-ipv6", ip4(flow.ICMP, nil, 0, icmp(3, 1, 0, ip6(17, udp(1, 2, "")))),
		flow.Packet{Flow: flow4(flow.ICMP, 0, 0), ICMPType: 3, ICMPCode: 1, Payload: ip6(17, udp(1, 2, ""))}},
	{"other4", ip4(47, nil, 0, []byte("gre")),
		flow.Packet{Flow: flow4(47, 0, 0), Payload: []byte("gre")}},
	{"icmpv6-in-ipv4", ip4(flow.ICMPv6, nil, 0, []byte("?")),
		flow.Packet{Flow: flow4(flow.ICMPv6, 0, 0), Payload: []byte("?")}},

	{"tcp6", ip6(6, tcp(1, 2, flow.SYN|flow.ACK, "", "")),
		flow.Packet{Flow: flow6(flow.TCP, 1, 2), TCPFlags: flow.SYN | flow.ACK, Payload: []byte{}}},
	{"udp6-extensions", ip6(0, ext(43, ext(60, ext(17, udp(1, 2, "x"))))),
		flow.Packet{Flow: flow6(flow.UDP, 1, 2), Payload: []byte("x")}},
	{"tcp6-auth", ip6(51, append([]byte{6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, tcp(1, 2, flow.ACK, "", "")...)),
		flow.Packet{Flow: flow6(flow.TCP, 1, 2), TCPFlags: flow.ACK, Acking: flow.Acking{Pure: true}, Payload: []byte{}}},
	{"udp6-first-fragment", ip6(44, append([]byte{17, 0, 0, 1, 0, 0, 0, 0}, udp(1, 2, "x")...)),
		flow.Packet{Flow: flow6(flow.UDP, 1, 2), Payload: []byte("x")}},
	{"udp6-later-fragment", ip6(44, append([]byte{17, 0, 1, 0, 0, 0, 0, 0}, "rest"...)),
		flow.Packet{Flow: flow6(flow.UDP, 0, 0), Fragment: true, Payload: []byte("rest")}},
	{"echo6", ip6(58, icmp(129, 0, 9<<16, nil)),
		flow.Packet{Flow: flow6(flow.ICMPv6, 9, 9), ICMPType: 129, Payload: []byte{}}},
	{"unreachable6", ip6(58, icmp(1, 3, 0, ip6(17, udp(1, 2, "a long payload"))[:50])),
		flow.Packet{Flow: flow6(flow.ICMPv6, 0, 0), ICMPType: 1, ICMPCode: 3, Inner: new(flow6(flow.UDP, 1, 2)),
			Payload: ip6(17, udp(1, 2, "a long payload"))[:50]}},
	{"too-big6", ip6(58, icmp(2, 0, 1280, ip6(6, tcp(1, 2, flow.ACK, "", "")))),
		flow.Packet{Flow: flow6(flow.ICMPv6, 0, 0), ICMPType: 2, Inner: new(flow6(flow.TCP, 1, 2)),
			Payload: ip6(6, tcp(1, 2, flow.ACK, "", ""))}},
	{"no-next-header6", ip6(59, nil),
		flow.Packet{Flow: flow6(59, 0, 0), Payload: []byte{}}},
}

var malformedTests = []struct {
	name string
	pkt  []byte
	want error
}{
	{"empty", nil, flow.ErrTruncated},
	{"version-5", []byte{5 << 4}, flow.ErrVersion},
	{"short4", ip4(flow.TCP, nil, 0, nil)[:19], flow.ErrTruncated},
	{"header-length4", append([]byte{4<<4 | 4}, ip4(flow.TCP, nil, 0, nil)[1:]...), flow.ErrHeader},
	{"cut4", ip4(flow.UDP, nil, 0, udp(1, 2, "payload"))[:30], flow.ErrTruncated},
	{"tcp4-short", ip4(flow.TCP, nil, 0, tcp(1, 2, 0, "", "")[:19]), flow.ErrTruncated},
	{"tcp4-offset", ip4(flow.TCP, nil, 0, append(append(ports(1, 2), make([]byte, 8)...), 0xf0, 0, 0, 0, 0, 0, 0, 0)), flow.ErrTruncated},
	{"udp4-short", ip4(flow.UDP, nil, 0, udp(1, 2, "")[:7]), flow.ErrTruncated},
	{"udp4-length", ip4(flow.UDP, nil, 0, []byte{0, 1, 0, 2, 0, 7, 0, 0}), flow.ErrTruncated},
	{"icmp4-short", ip4(flow.ICMP, nil, 0, []byte{8, 0, 0}), flow.ErrTruncated},
	{"short6", ip6(6, nil)[:39], flow.ErrTruncated},
	{"cut6", ip6(17, udp(1, 2, "payload"))[:45], flow.ErrTruncated},
	{"extension-short6", ip6(0, []byte{17, 0, 0}), flow.ErrTruncated},
	{"extension-long6", ip6(60, []byte{17, 9, 0, 0, 0, 0, 0, 0}), flow.ErrTruncated},
	{"extensions6", ip6(0, ext(0, ext(0, ext(0, ext(0, ext(0, ext(0, ext(0, ext(17, udp(1, 2, "")))))))))), flow.ErrExtension},
}

func TestParse(t *testing.T) {
	equal := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	for _, tt := range parseTests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := flow.Parse(tt.pkt)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, equal); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseMalformed(t *testing.T) {
	for _, tt := range malformedTests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := flow.Parse(tt.pkt); !errors.Is(err, tt.want) {
				t.Errorf("Parse = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestFlow(t *testing.T) {
	f := flow4(flow.TCP, 1234, 80)
	if got, want := f.String(), "tcp 192.0.2.1:1234 -> 198.51.100.2:80"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	if got := f.Reverse().Reverse(); got != f {
		t.Errorf("Reverse twice = %v, want %v", got, f)
	}
	if got, want := flow.Proto(47).String(), "proto-47"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
}

func TestParseAllocates(t *testing.T) {
	pkt := ip4(flow.TCP, nil, 0, tcp(1, 2, flow.ACK, "", "payload"))
	if n := testing.AllocsPerRun(100, func() { flow.Parse(pkt) }); n != 0 {
		t.Errorf("Parse allocates %v times", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range parseTests {
		f.Add(tt.pkt)
	}
	for _, tt := range malformedTests {
		f.Add(tt.pkt)
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		p, err := flow.Parse(pkt)
		if err != nil {
			return
		}
		if !p.Flow.Src.IsValid() || !p.Flow.Dst.IsValid() {
			t.Errorf("flow %v without addresses", p.Flow)
		}
		if p.Flow.Src.Addr().Is4() != p.Flow.Dst.Addr().Is4() {
			t.Errorf("flow %v between IP versions", p.Flow)
		}
		if len(p.Payload) > len(pkt) {
			t.Errorf("payload of %d bytes in a packet of %d", len(p.Payload), len(pkt))
		}
		if p.Fragment && (p.Flow.Src.Port() != 0 || p.Flow.Dst.Port() != 0 || p.TCPFlags != 0) {
			t.Errorf("later fragment %+v has ports", p)
		}
		if p.Inner != nil && p.Flow.Proto != flow.ICMP && p.Flow.Proto != flow.ICMPv6 {
			t.Errorf("%v quotes %v", p.Flow, p.Inner)
		}
		if p.Flow.Reverse().Reverse() != p.Flow {
			t.Errorf("Reverse twice = %v, want %v", p.Flow.Reverse().Reverse(), p.Flow)
		}
	})
}
