package session

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/netstack/replay"
)

// listen listens on a wildcard address of the session's namespace, on both families.
func (p program) listen(port uint16) int {
	p.t.Helper()
	fd := p.socket(netip.AddrPortFrom(podIP6, port), unix.SOCK_STREAM)
	p.t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		p.t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)}); err != nil {
		p.t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		p.t.Fatal(err)
	}
	return fd
}

// TestDeliverInside connects as the clients of mirrored flows to a program of the
// session, which sees who they are.
func TestDeliverInside(t *testing.T) {
	s := newLab(t).start()
	p := newProgram(t, s)
	const port = 3000
	ln := p.listen(port)
	pod, pod6 := netip.AddrPortFrom(podIP, port), netip.AddrPortFrom(podIP6, port)
	for _, tt := range []struct {
		name           string
		client, server string
		want           string // the address that the program sees; without a port where that is not the client's
	}{
		{"real-client", "203.0.113.7:40000", pod.String(), "203.0.113.7:40000"},
		{"again", "203.0.113.7:40001", pod.String(), "203.0.113.7"},
		{"port-in-use", "203.0.113.7:40000", pod.String(), "203.0.113.7"},
		{"ipv6", "[2001:db8:9::7]:40000", pod6.String(), "[2001:db8:9::7]:40000"},
		{"sidecar", "127.0.0.6:41000", pod.String(), "127.0.0.6:41000"},
		{"sidecar-ipv6", "[::6]:41000", pod6.String(), "[::6]:41000"},
		{"sidecar-to-localhost", "127.0.0.1:41000", "127.0.0.1:3000", "127.0.0.1:41000"},
		{"sidecar-to-localhost-ipv6", "[::1]:41000", "[::1]:3000", "127.0.0.1"},
		{"pod-to-itself", netip.AddrPortFrom(podIP, 42000).String(), pod.String(), "127.0.0.1"},
		{"pod-to-itself-ipv6", netip.AddrPortFrom(podIP6, 42000).String(), pod6.String(), "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := s.deliver(t.Context(), replay.Call{Client: netip.MustParseAddrPort(tt.client), Server: netip.MustParseAddrPort(tt.server), Again: tt.name == "again"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			var fd int
			var sa unix.Sockaddr
			if err := hooktest.Again(func() (err error) { fd, sa, err = unix.Accept(ln); return err }); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			peer := addrOf(sa)
			if got := peer.String(); got != tt.want && peer.Addr().String() != tt.want {
				t.Errorf("the program sees %s, want %s", got, tt.want)
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 16)
			n := 0
			err = hooktest.Again(func() (err error) { n, err = unix.Read(fd, buf); return err })
			if err != nil || string(buf[:n]) != "hello" {
				t.Errorf("the program hears %q, %v", buf[:n], err)
			}
			if _, err := unix.Write(fd, []byte("answer")); err != nil {
				t.Fatal(err)
			}
			if n, err := io.ReadFull(c, buf[:6]); err != nil || string(buf[:n]) != "answer" {
				t.Errorf("the answer is %q, %v", buf[:n], err)
			}
		})
	}
}

// TestDeliverToTheLaptop connects to a listener on the laptop's loopback, where none
// is in the session, says who the client is if it should, and is refused where there is
// no listener either.
func TestDeliverToTheLaptop(t *testing.T) {
	for _, tt := range []struct {
		name, address string
		proxy         bool
		call          replay.Call
		want          string
	}{
		{"plain", "127.0.0.1:0", false, replay.Call{Client: netip.MustParseAddrPort("203.0.113.7:40000"), Server: netip.AddrPortFrom(podIP, 0)}, ""},
		{"proxied", "127.0.0.1:0", true, replay.Call{Client: netip.MustParseAddrPort("203.0.113.7:258"), Server: netip.AddrPortFrom(podIP, 0)},
			proxySignature + "\x21\x11\x00\x0c" + "\xcb\x00\x71\x07" + "\xc6\x33\x64\x07" + "\x01\x02"},
		{"proxied-ipv6", "[::1]:0", true, replay.Call{Client: netip.MustParseAddrPort("[2001:db8::7]:258"), Server: netip.AddrPortFrom(podIP6, 0)},
			proxySignature + "\x21\x21\x00\x24" + string(netip.MustParseAddr("2001:db8::7").AsSlice()) + string(podIP6.AsSlice()) + "\x01\x02"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			opening := l.opening()
			opening.req.MirrorProxy = tt.proxy
			s, err := opening.Start(t.Context(), "api", l.observer())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ln, err := net.Listen("tcp", tt.address)
			if err != nil {
				t.Skipf("no %s here: %v", tt.address, err)
			}
			defer ln.Close()
			port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
			call := tt.call
			call.Server = netip.AddrPortFrom(call.Server.Addr(), port)
			c, err := s.deliver(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			in, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			want := tt.want
			if want != "" {
				want += string([]byte{byte(port >> 8), byte(port)})
			}
			if got, err := io.ReadAll(in); err != nil || string(got) != want {
				t.Errorf("the program hears %q, %v, want %q", got, err, want)
			}
			ln.Close()
			if _, err := s.deliver(t.Context(), call); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("without a listener: %v", err)
			}
		})
	}
}

// TestContainedPlaces: a container sees who has sent what is copied into it, unless that
// address means something else there.
func TestContainedPlaces(t *testing.T) {
	l := newLab(t)
	s := l.start()
	nets := []netip.Prefix{netip.MustParsePrefix("172.18.0.0/16")}
	for _, tt := range []struct{ name, client, server, from, to string }{
		{"caller", "198.51.100.9:5000", podIP.String() + ":80", "198.51.100.9:5000", podIP.String() + ":80"},
		{"caller6", "[2001:db8:7::9]:5000", "[" + podIP6.String() + "]:80", "[2001:db8:7::9]:5000", "[" + podIP6.String() + "]:80"},
		{"sidecar", "127.0.0.6:5000", podIP.String() + ":80", "192.0.0.5:5000", podIP.String() + ":80"},
		{"sidecar6", "[::6]:5000", "[" + podIP6.String() + "]:80", "[::6]:5000", "[" + podIP6.String() + "]:80"},
		{"loopback6", "[::1]:5000", "[::1]:80", "192.0.0.5:5000", podIP.String() + ":80"},
		{"itself", podIP.String() + ":5000", podIP.String() + ":80", "192.0.0.5:5000", podIP.String() + ":80"},
		{"engines_network", "172.18.0.1:5000", podIP.String() + ":80", "192.0.0.5:5000", podIP.String() + ":80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to, ok := s.containedPlaces(netip.MustParseAddrPort(tt.client), netip.MustParseAddrPort(tt.server), nets)
			if !ok || from.String() != tt.from || to.String() != tt.to {
				t.Errorf("from %v to %v, %v; want from %s to %s", from, to, ok, tt.from, tt.to)
			}
		})
	}
	if _, err := s.deliverContained(t.Context(), replay.Call{Client: netip.MustParseAddrPort("198.51.100.9:5000"), Server: netip.AddrPortFrom(podIP, 80)}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no container has joined: %v", err)
	}
}
