package netns

import (
	"bytes"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/hooktest"
)

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func domainOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// socket makes a socket in the namespace that ends with the test.
func socket(t testing.TB, c *Client, domain, typ int) int {
	t.Helper()
	fd, err := c.Socket(domain, typ, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestDatagramOutAndBack(t *testing.T) {
	h, c := start(t, pod4, pod6)
	t.Logf("device: %s", h.Kind())
	big := bytes.Repeat([]byte("0123456789abcdef"), (defaultMTU-48)/16)
	for _, tt := range []struct {
		name     string
		src, dst netip.Addr
		payload  []byte
	}{
		{"v4", pod4, far4, []byte("question")},
		{"v6", pod6, far6, []byte("question")},
		{"v4-full-size", pod4, far4, big},
		{"v6-full-size", pod6, far6, big},
		{"loopback", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.53"), []byte("question")},
		{"odd-length", pod4, far4, []byte("odd")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd := socket(t, c, domainOf(tt.dst), unix.SOCK_DGRAM)
			dst := netip.AddrPortFrom(tt.dst, 53)
			if err := unix.Sendto(fd, tt.payload, 0, sockaddr(dst)); err != nil {
				t.Fatal(err)
			}
			p := expect(t, h, "datagram to "+dst.String(), func(p packet) bool { return p.dst == dst })
			if p.src.Addr() != tt.src || !bytes.Equal(p.payload, tt.payload) {
				t.Errorf("got source %v, %d bytes, want %v, %d bytes", p.src, len(p.payload), tt.src, len(tt.payload))
			}
			if !p.sound {
				t.Error("checksum was left to hardware")
			}
			answer := udpPacket(dst, p.src, []byte("answer"))
			if n, err := h.Write([][]byte{append(make([]byte, 7), answer...)}, 7); n != 1 || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			buf := make([]byte, 64)
			var n int
			var from unix.Sockaddr
			err := hooktest.Again(func() (err error) { n, from, err = unix.Recvfrom(fd, buf, 0); return err })
			if err != nil || string(buf[:n]) != "answer" {
				t.Fatalf("received %q, %v", buf[:max(n, 0)], err)
			}
			if want := sockaddr(dst); !sameAddr(from, want) {
				t.Errorf("answer from %v, want %v", from, want)
			}
		})
	}
}

func sameAddr(a, b unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	}
	return false
}

func TestDialIn(t *testing.T) {
	h, c := start(t, pod4, pod6)
	loop := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		name           string
		bind, src, dst netip.Addr
		port           uint16
	}{
		{"loopback", loop, loop, loop, 8080},
		{"loopback-to-wildcard", netip.IPv4Unspecified(), loop, loop, 8081},
		{"cluster", netip.IPv4Unspecified(), far4, pod4, 8082},
		{"cluster-v6", netip.IPv6Unspecified(), far6, pod6, 8083},
		{"privileged-port", netip.IPv4Unspecified(), far4, pod4, 80},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd := socket(t, c, domainOf(tt.bind), unix.SOCK_STREAM)
			if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(tt.bind, tt.port))); err != nil {
				t.Fatal(err)
			}
			if err := unix.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
			src, dst := netip.AddrPortFrom(tt.src, 50001), netip.AddrPortFrom(tt.dst, tt.port)
			if _, err := h.Write([][]byte{synPacket(src, dst)}, 0); err != nil {
				t.Fatal(err)
			}
			p := expect(t, h, "SYN-ACK to "+src.String(), func(p packet) bool { return p.proto == protoTCP && p.dst == src })
			if p.src != dst || p.flags != flagSYNAC || !p.sound {
				t.Errorf("got %+v, want a sound SYN-ACK from %v", p, dst)
			}
		})
	}
}

func TestRefusedInside(t *testing.T) {
	h, _ := start(t, pod4)
	loop := netip.MustParseAddr("127.0.0.1")
	src := netip.AddrPortFrom(loop, 50002)
	if _, err := h.Write([][]byte{synPacket(src, netip.AddrPortFrom(loop, 9))}, 0); err != nil {
		t.Fatal(err)
	}
	p := expect(t, h, "RST", func(p packet) bool { return p.proto == protoTCP && p.dst == src })
	if p.flags&0x04 == 0 {
		t.Errorf("flags %#x, want RST", p.flags)
	}
}

// TestFamilies checks that a family the pod does not have fails at once.
func TestFamilies(t *testing.T) {
	for _, tt := range []struct {
		name   string
		addr   netip.Addr
		absent netip.Addr
	}{
		{"v4-only", pod4, far6},
		{"v6-only", pod6, far4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, c := start(t, tt.addr)
			fd := socket(t, c, domainOf(tt.absent), unix.SOCK_DGRAM)
			err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(tt.absent, 53)))
			if err != unix.ENETUNREACH && err != unix.EADDRNOTAVAIL {
				t.Errorf("connect to %v: %v, want ENETUNREACH", tt.absent, err)
			}
			loop := socket(t, c, unix.AF_INET, unix.SOCK_DGRAM)
			if err := unix.Connect(loop, sockaddr(netip.MustParseAddrPort("127.0.0.1:53"))); err != nil {
				t.Errorf("connect to loopback: %v", err)
			}
			v6 := socket(t, c, unix.AF_INET6, unix.SOCK_STREAM)
			if err := unix.Bind(v6, sockaddr(netip.MustParseAddrPort("[::]:8080"))); err != nil {
				t.Errorf("bind to [::]: %v", err)
			}
		})
	}
}

func TestSocketErrno(t *testing.T) {
	_, c := start(t, pod4)
	for _, tt := range []struct {
		name               string
		domain, typ, proto int
		want               error
	}{
		{"stream", unix.AF_INET, unix.SOCK_STREAM, 0, nil},
		{"mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, nil},
		{"nonblock", unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_NONBLOCK, 0, nil},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, nil},
		{"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, nil},
		{"netlink-route", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, nil},
		{"netlink-other", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, unix.EAFNOSUPPORT},
		{"unix", unix.AF_UNIX, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT},
		{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT},
		{"bad-protocol", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_UDP, unix.EPROTONOSUPPORT},
		{"bad-type", unix.AF_INET, 9, 0, unix.ESOCKTNOSUPPORT},
		{"negative", -1, -1, -1, unix.EAFNOSUPPORT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd, err := c.Socket(tt.domain, tt.typ, tt.proto)
			if err != tt.want && !(tt.name == "mptcp" && errors.Is(err, unix.EPROTONOSUPPORT)) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			defer unix.Close(fd)
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("descriptor is not close-on-exec")
			}
			fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if got, want := fl&unix.O_NONBLOCK != 0, tt.typ&unix.SOCK_NONBLOCK != 0; got != want {
				t.Errorf("nonblocking %v, want %v", got, want)
			}
		})
	}
}

func TestManyClients(t *testing.T) {
	_, first := start(t, pod4)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c, err := Dial(first.path)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range 200 {
				fd, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
				if err != nil {
					t.Error(err)
					return
				}
				unix.Close(fd)
				if fd, err := first.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0); err != nil {
					t.Error(err)
				} else {
					unix.Close(fd)
				}
			}
		})
	}
	wg.Wait()
}

func TestWriteDropsWhatIsNoPacket(t *testing.T) {
	h, _ := start(t, pod4)
	good := udpPacket(netip.AddrPortFrom(far4, 1), netip.AddrPortFrom(pod4, 2), nil)
	n, err := h.Write([][]byte{{0xff, 1, 2}, good, make([]byte, 40)}, 0)
	if n != 1 || err != nil {
		t.Errorf("Write = %d, %v, want 1, nil", n, err)
	}
	if s := h.Stats(); s.Written != 1 || s.Dropped != 2 {
		t.Errorf("stats %+v, want 1 written, 2 dropped", s)
	}
}

func BenchmarkSocket(b *testing.B) {
	_, c := start(b, pod4)
	for b.Loop() {
		fd, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}
