package session

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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
		{"any-port", "203.0.113.7:0", pod.String(), "203.0.113.7"},
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
			c, err := s.deliver(t.Context(), netip.MustParseAddrPort(tt.client), netip.MustParseAddrPort(tt.server))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			fd, sa, err := unix.Accept(ln)
			if err != nil {
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
			n, err := unix.Read(fd, buf)
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
// is in the session, and is refused where there is none either.
func TestDeliverToTheLaptop(t *testing.T) {
	s := newLab(t).start()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	client := netip.MustParseAddrPort("203.0.113.7:40000")
	c, err := s.deliver(t.Context(), client, netip.AddrPortFrom(podIP, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	ln.Close()
	if _, err := s.deliver(t.Context(), client, netip.AddrPortFrom(podIP, port)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without a listener: %v", err)
	}
}
