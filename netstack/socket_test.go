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

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// listen returns a socket at a with a deadline.
func listen(t *testing.T, s *netstack.Stack, a netip.AddrPort) *netstack.UDPSocket {
	t.Helper()
	c, err := s.ListenUDP(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUDPSocketTalksWithMany(t *testing.T) {
	for _, tt := range []struct {
		name          string
		local, remote netip.Addr
		at            netip.Addr
		size          int
	}{
		{"ipv4", client4, server4, client4, 100},
		{"ipv6", client6, server6, client6, 100},
		{"any", client4, server4, netip.IPv4Unspecified(), 0},
		{"fragments", client4, server4, client4, 65507},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			a, b := netstacktest.Pair(t, clientConfig, serverConfig)
			one, two := listen(t, b, port(tt.remote, 7)), listen(t, b, port(tt.remote, 8))
			c := listen(t, a, port(tt.at, 0))
			want := bytes.Repeat([]byte{7}, tt.size)
			for _, peer := range []*netstack.UDPSocket{one, two} {
				if _, err := c.WriteTo(want, peer.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 1<<16)
				n, from, err := peer.ReadFrom(got)
				if err != nil || !bytes.Equal(got[:n], want) {
					t.Fatalf("got %d bytes, %v", n, err)
				}
				if src := from.(*net.UDPAddr).AddrPort(); src.Addr() != tt.local || src.Port() != c.LocalAddr().(*net.UDPAddr).AddrPort().Port() {
					t.Errorf("from %v", from)
				}
				if _, err := peer.WriteTo(want, from); err != nil {
					t.Fatal(err)
				}
				n, src, err := c.ReadFromAddrPort(got)
				if err != nil || !bytes.Equal(got[:n], want) || src.Addr() != tt.remote {
					t.Errorf("answer of %d bytes from %v, %v", n, src, err)
				}
			}
		})
	}
}

func TestUDPSocketHearsOfErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		local netip.Addr
		dst   netip.AddrPort
		how   error
		want  syscall.Errno
	}{
		{"closed4", client4, port(server4, 1), nil, syscall.ECONNREFUSED},
		{"closed6", client6, port(server6, 1), nil, syscall.ECONNREFUSED},
		{"host4", client4, port(foreign4, 1), syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
		{"host6", client6, port(foreign6, 1), syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
		{"net4", client4, port(foreign4, 1), syscall.ENETUNREACH, syscall.ENETUNREACH},
		{"net6", client6, port(foreign6, 1), syscall.ENETUNREACH, syscall.ENETUNREACH},
		{"prohibited6", client6, port(foreign6, 1), syscall.EACCES, syscall.EACCES},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := netstacktest.Pair(t, clientConfig, serverConfig)
			if tt.how != nil {
				b.ForwardUDP(func(f flow.Flow, _ []byte) { b.SendUnreachable(f, tt.how) })
			}
			c := listen(t, a, port(tt.local, 0))
			if _, err := c.WriteToAddrPort([]byte("x"), tt.dst); err != nil {
				t.Fatal(err)
			}
			_, _, err := c.ReadFromAddrPort(make([]byte, 1))
			var lost *netstack.Undelivered
			if !errors.As(err, &lost) || lost.Dst != tt.dst || !errors.Is(err, tt.want) {
				t.Errorf("read: %v, want %v about %v", err, tt.want, tt.dst)
			}
		})
	}
}

func TestUDPSocketErrors(t *testing.T) {
	s := netstacktest.New(t, netstack.Config{Addrs: []netip.Addr{client4}})
	c := listen(t, s, port(client4, 53))
	for _, tt := range []struct {
		name string
		call func() error
		want error
	}{
		{"taken", func() error { _, err := s.ListenUDP(port(client4, 53)); return err }, syscall.EADDRINUSE},
		{"foreign", func() error { _, err := s.ListenUDP(port(server4, 53)); return err }, syscall.EADDRNOTAVAIL},
		{"no-ipv6", func() error { _, err := s.ListenUDP(port(client6, 53)); return err }, syscall.EADDRNOTAVAIL},
		{"mixed", func() error { _, err := c.WriteToAddrPort(nil, port(server6, 1)); return err }, syscall.EINVAL},
		{"too-long", func() error { _, err := c.WriteToAddrPort(make([]byte, 65508), port(server4, 1)); return err }, syscall.EMSGSIZE},
		{"deadline", func() error {
			c.SetReadDeadline(time.Unix(1, 0))
			_, _, err := c.ReadFrom(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		{"closed", func() error {
			c.Close()
			_, _, err := c.ReadFrom(make([]byte, 1))
			return err
		}, net.ErrClosed},
		{"closed-twice", func() error { return c.Close() }, net.ErrClosed},
		{"free-again", func() error { _, err := s.ListenUDP(port(client4, 53)); return err }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.call(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
