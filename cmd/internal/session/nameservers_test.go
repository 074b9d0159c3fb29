package session

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestNameserversFollow checks that a session follows the laptop into another network, and forgets no address that a
// program may have read before.
func TestNameserversFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	// As NetworkManager and systemd-resolved do: a new file in the place of the old one.
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	at := func(a string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), 53) }
	replace("nameserver 192.0.2.1\n")
	n := newNameservers(path, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	changed, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		n.follow(ctx, func() { changed <- struct{}{} })
	}()
	wait := func() {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatal("a change is not seen")
		}
	}
	replace("nameserver 198.51.100.1\nnameserver fe80::1%lo\noptions timeout:1\n")
	wait()
	if got := n.conf(); got.Nameservers[0] != at("198.51.100.1").Addr() || got.Timeout != time.Second {
		t.Errorf("got %+v", got)
	}
	for _, tt := range []struct {
		addr netip.AddrPort
		want bool
	}{
		{at("192.0.2.1"), true}, {at("198.51.100.1"), true}, {at("fe80::1"), true}, {at("127.0.0.53"), true}, {at("127.0.0.54"), true},
		{at("::ffff:192.0.2.1"), true}, {at("127.0.0.1"), false}, {at("192.0.2.2"), false}, {netip.MustParseAddrPort("192.0.2.1:54"), false},
	} {
		if got := n.has(tt.addr); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.addr, got, tt.want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for i := range maxNameservers {
		replace(fmt.Sprintf("nameserver 203.0.113.%d\nnameserver 127.0.0.53\n", i))
		n.read()
	}
	if got := n.addrs(); len(got) != maxNameservers || n.has(at("192.0.2.1")) || !n.has(at("127.0.0.53")) || !n.has(at("203.0.113.31")) {
		t.Errorf("got %v", got)
	}
	cancel()
	for {
		select {
		case <-changed:
			continue
		case <-ended:
		}
		break
	}
}

// TestNameserversNone checks what programs assume of a laptop without resolv.conf.
func TestNameserversNone(t *testing.T) {
	n := newNameservers(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler))
	if !n.has(netip.MustParseAddrPort("127.0.0.1:53")) || len(n.conf().Nameservers) != 1 {
		t.Errorf("got %v, %+v", n.addrs(), n.conf())
	}
}
