package netstack_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func TestUDPForward(t *testing.T) {
	tests := []struct {
		name     string
		src, dst netip.Addr
		size     int
	}{
		{"ipv4", client4, foreign4, 100},
		{"ipv6", client6, foreign6, 100},
		{"ipv4-empty", client4, foreign4, 0},
		{"ipv4-fragments", client4, foreign4, 65507},
		{"ipv6-fragments", client6, foreign6, 65500},
		{"own-address", client4, server4, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			a, b := netstacktest.Pair(t, clientConfig, serverConfig)
			want := bytes.Repeat([]byte{0xa5}, tt.size)
			dst := port(tt.dst, 53)
			answered := make(chan struct{})
			b.ForwardUDP(func(f flow.Flow, payload []byte) {
				defer close(answered)
				if f.Dst != dst || f.Src.Addr() != tt.src || f.Proto != flow.UDP {
					t.Errorf("datagram of %v", f)
				}
				if !bytes.Equal(payload, want) {
					t.Errorf("payload of %d bytes, want %d", len(payload), len(want))
				}
				// Answers may be sent from inside the call.
				if err := b.SendUDP(f.Dst, f.Src, payload); err != nil {
					t.Error(err)
				}
			})
			c, err := a.DialUDP(netip.AddrPort{}, dst)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1<<16)
			n, err := c.Read(got)
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("answer of %d bytes, %v", n, err)
			}
			<-answered // what was sent is counted afterwards
			if st := b.Stats(); st.UDPIn != 1 || st.UDPOut != 1 {
				t.Errorf("stats = %+v", st)
			}
		})
	}
}

func TestUDPUnreachable(t *testing.T) {
	for name, dst := range map[string]netip.AddrPort{"ipv4": port(foreign4, 53), "ipv6": port(foreign6, 53)} {
		t.Run(name, func(t *testing.T) {
			a, b := netstacktest.Pair(t, clientConfig, serverConfig)
			b.ForwardUDP(func(f flow.Flow, _ []byte) {
				if err := b.SendUnreachable(f, syscall.ECONNREFUSED); err != nil {
					t.Error(err)
				}
			})
			c, err := a.DialUDP(netip.AddrPort{}, dst)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("Read = %v, want ECONNREFUSED", err)
			}
		})
	}
}

func TestUDPErrors(t *testing.T) {
	s := netstacktest.New(t, netstack.Config{Addrs: []netip.Addr{client4}})
	src, dst := port(client4, 1), port(server4, 2)
	tests := []struct {
		name string
		call func() error
		want error
	}{
		{"too-long", func() error { return s.SendUDP(src, dst, make([]byte, 65508)) }, syscall.EMSGSIZE},
		{"no-ipv6", func() error { return s.SendUDP(port(client6, 1), port(server6, 2), nil) }, syscall.ENETUNREACH},
		{"mixed", func() error { return s.SendUDP(src, port(server6, 2), nil) }, syscall.EINVAL},
		{"not-udp", func() error { return s.SendUnreachable(flow.Flow{Proto: flow.TCP, Src: src, Dst: dst}, nil) }, syscall.EPROTONOSUPPORT},
		{"timeout-is-silent", func() error {
			return s.SendUnreachable(flow.Flow{Proto: flow.UDP, Src: src, Dst: dst}, os.ErrDeadlineExceeded)
		}, nil},
		{"full", func() error {
			for {
				if err := s.SendUDP(src, dst, make([]byte, 60000)); err != nil {
					return err
				}
			}
		}, syscall.ENOBUFS},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.call()
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			var op *net.OpError
			if err != nil && !errors.As(err, &op) {
				t.Errorf("got a %T, want *net.OpError", err)
			}
		})
	}
	if st := s.Stats(); st.LinkDropsDatagram != 1 {
		t.Errorf("stats = %+v, want one dropped datagram", st)
	}
}

func TestUDPConnDeadlineAndClose(t *testing.T) {
	s := netstacktest.New(t, clientConfig)
	c, err := s.DialUDP(netip.AddrPort{}, port(server4, 53))
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v, want os.ErrDeadlineExceeded", err)
	}
	c.SetReadDeadline(time.Time{})
	failed := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		failed <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want net.ErrClosed", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write = %v, want net.ErrClosed", err)
	}
}

// next returns the next packet that leaves s.
func next(t *testing.T, s *netstack.Stack) []byte {
	t.Helper()
	bufs, sizes := [][]byte{make([]byte, 1<<16)}, []int{0}
	if n, err := s.ReadPackets(bufs, sizes, 16); err != nil || n != 1 {
		t.Fatalf("ReadPackets = %d, %v", n, err)
	}
	return bufs[0][16 : 16+sizes[0]]
}

func TestEcho(t *testing.T) {
	tests := []struct {
		name     string
		src, dst netip.Addr
		proto    flow.Proto
		want     uint8
	}{
		{"ipv4", client4, foreign4, flow.ICMP, uint8(header.ICMPv4EchoReply)},
		{"ipv6", client6, foreign6, flow.ICMPv6, uint8(header.ICMPv6EchoReply)},
		{"own4", client4, server4, flow.ICMP, uint8(header.ICMPv4EchoReply)},
		{"own6", client6, server6, flow.ICMPv6, uint8(header.ICMPv6EchoReply)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := netstacktest.New(t, serverConfig)
			request := echoRequest(tt.src, tt.dst)
			if tt.proto == flow.ICMPv6 {
				request = echoRequest6(tt.src, tt.dst)
			}
			own := tt.dst == server4 || tt.dst == server6
			// Without a handler nobody but the stack itself answers.
			if !own {
				s.Deliver(request)
			}
			s.ForwardEcho(func(e netstack.Echo) {
				if own {
					t.Errorf("echo to the stack itself was forwarded: %+v", e)
				}
				want := netstack.Echo{Src: tt.src, Dst: tt.dst, ID: 0x1234, Seq: 7, Payload: make([]byte, 1000)}
				if diff := cmp.Diff(want, e, compareAddrs); diff != "" {
					t.Errorf("echo (-want +got):\n%s", diff)
				}
				if err := s.SendEchoReply(e); err != nil {
					t.Error(err)
				}
			})
			s.Deliver(request)
			pkt := next(t, s)
			got, err := flow.Parse(pkt)
			if err != nil {
				t.Fatal(err)
			}
			want := flow.Packet{
				Flow: flow.Flow{
					Proto: tt.proto,
					Src:   netip.AddrPortFrom(tt.dst, 0x1234),
					Dst:   netip.AddrPortFrom(tt.src, 0x1234),
				},
				ICMPType: tt.want,
				Payload:  make([]byte, 1000),
			}
			if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
			checkChecksum(t, pkt)
			if st := s.Stats(); !own && (st.EchoIn != 1 || st.EchoOut != 1) {
				t.Errorf("stats = %+v", st)
			}
		})
	}
}

// checkChecksum verifies the checksums of a packet that leaves a stack.
func checkChecksum(t *testing.T, pkt []byte) {
	t.Helper()
	var sum uint16
	var payload []byte
	if pkt[0]>>4 == 4 {
		ip := header.IPv4(pkt)
		if !ip.IsChecksumValid() {
			t.Error("wrong checksum of the IP header")
		}
		payload = ip.Payload()
		if ip.TransportProtocol() != header.ICMPv4ProtocolNumber {
			sum = header.PseudoHeaderChecksum(ip.TransportProtocol(), ip.SourceAddress(), ip.DestinationAddress(), uint16(len(payload)))
		}
	} else {
		ip := header.IPv6(pkt)
		payload = ip.Payload()
		proto, ok := ip.TryParseTransportProtocol()
		if !ok {
			t.Fatalf("no transport protocol in % x", pkt)
		}
		sum = header.PseudoHeaderChecksum(proto, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(payload)))
	}
	if got := checksum.Checksum(payload, sum); got != 0xffff {
		t.Errorf("checksum over %d bytes = %#x, want 0xffff", len(payload), got)
	}
}

func TestChecksums(t *testing.T) {
	s := netstacktest.New(t, serverConfig)
	for _, dst := range []netip.Addr{client4, client6} {
		src := foreign4
		if dst.Is6() {
			src = foreign6
		}
		udp := flow.Flow{Proto: flow.UDP, Src: port(dst, 1), Dst: port(src, 2)}
		for _, size := range []int{0, 1, 2, 1001, 65000} {
			if err := s.SendUDP(port(src, 1), port(dst, 2), bytes.Repeat([]byte{0xff, 0x5a}, size)[:size]); err != nil {
				t.Fatal(err)
			}
			checkChecksum(t, next(t, s))
		}
		for _, err := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES} {
			if err := s.SendUnreachable(udp, err); err != nil {
				t.Fatal(err)
			}
			pkt := next(t, s)
			checkChecksum(t, pkt)
			if got, err := flow.Parse(pkt); err != nil || got.Inner == nil || *got.Inner != udp {
				t.Errorf("unreachable quotes %v, %v, want %v", got.Inner, err, udp)
			}
		}
	}
	s.Deliver(segment(client4, server4, 1, 2, header.TCPFlagSyn))
	checkChecksum(t, next(t, s))
}

func TestRejectQuotesSYN(t *testing.T) {
	s := netstacktest.New(t, serverConfig)
	s.ForwardTCP(1, func(r *netstack.TCPRequest) { r.Reject(syscall.EHOSTUNREACH) })
	syn := segment(client4, foreign4, 4711, 80, header.TCPFlagSyn)
	s.Deliver(syn)
	pkt := next(t, s)
	checkChecksum(t, pkt)
	got, err := flow.Parse(pkt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(syn, got.Payload); diff != "" {
		t.Errorf("quoted packet (-want +got):\n%s", diff)
	}
	if got.Flow.Src.Addr() != foreign4 || got.Flow.Dst.Addr() != client4 {
		t.Errorf("error goes %v", got.Flow)
	}
}

func TestMalformedPackets(t *testing.T) {
	s := netstacktest.New(t, netstack.Config{Addrs: []netip.Addr{client4}, Transparent: true})
	s.ForwardUDP(func(f flow.Flow, _ []byte) { t.Errorf("datagram of %v", f) })
	for _, pkt := range [][]byte{nil, {0x45}, make([]byte, 40), echoRequest6(client6, server6)} {
		s.Deliver(pkt)
	}
	long := datagram(client4, server4, 1, 2, "x")
	header.UDP(long[header.IPv4MinimumSize:]).SetLength(100)
	s.Deliver(long)
	if st := s.Stats(); st.Malformed != 5 || st.PacketsIn != 5 {
		t.Errorf("stats = %+v, want 5 malformed", st)
	}
}

func FuzzDeliver(f *testing.F) {
	f.Add(segment(client4, server4, 1, 2, header.TCPFlagSyn))
	f.Add(segment(client4, foreign4, 1, 2, header.TCPFlagAck))
	f.Add(datagram(client4, server4, 1, 2, "payload"))
	f.Add(echoRequest(client4, foreign4))
	f.Add(echoRequest6(client6, foreign6))
	f.Add(tooBig(client4, server4, 1, 2))
	f.Add(icmpMessage(client4, server4, header.ICMPv4DstUnreachable, header.ICMPv4PortUnreachable, 0, datagram(server4, client4, 1, 2, "")))
	cfg := serverConfig
	cfg.Loopback = true
	s, err := netstack.New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	s.ForwardTCP(10, func(r *netstack.TCPRequest) { r.Reject(syscall.EHOSTUNREACH) })
	s.ForwardUDP(func(u flow.Flow, payload []byte) { s.SendUDP(u.Dst, u.Src, payload) })
	s.ForwardEcho(func(e netstack.Echo) { s.SendEchoReply(e) })
	go netstacktest.Carry(s, func([]byte) {})
	f.Fuzz(func(t *testing.T, pkt []byte) { s.Deliver(pkt) })
}
