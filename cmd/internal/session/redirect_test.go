package session

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/hooktest"
)

func TestCallNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		want []string
	}{
		{"orders", []string{"orders.shop", "orders.shop.svc", "orders.shop.svc.k8s.example", "orders"}},
		{"orders.shop", []string{"orders.shop", "orders.shop.svc", "orders.shop.svc.k8s.example", "orders"}},
		{"ledger.money", []string{"ledger.money", "ledger.money.svc", "ledger.money.svc.k8s.example"}},
		{"ledger.money.svc", []string{"ledger.money", "ledger.money.svc", "ledger.money.svc.k8s.example"}},
		{"ledger.money.svc.k8s.example", []string{"ledger.money", "ledger.money.svc", "ledger.money.svc.k8s.example"}},
		{"db.example.org", []string{"db.example.org"}},
	} {
		pod := dnsproxy.ResolvConf{Search: []string{"shop.svc.k8s.example", "svc.k8s.example", "k8s.example"}}
		if got := callNames(tt.name, "shop", clusterDomain(pod)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// copyOf is a local copy of a service: it says hello and ends.
func copyOf(t *testing.T, hello string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, hello)
			c.Close()
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// TestRedirect: calls for a Service go to the local copy, of one port or of all, on
// every rung; the address itself is still the cluster's.
func TestRedirect(t *testing.T) {
	all, one := copyOf(t, "all ports"), copyOf(t, "port 81")
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	go func() { // ends with udp
		buf := make([]byte, 100)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo(buf[:n], from)
		}
	}()
	for _, rung := range []Rung{hook.Seccomp, hook.Relay} {
		t.Run(string(rung), func(t *testing.T) {
			l := newLab(t)
			o := l.opening()
			o.req.Hook = rung
			o.req.Redirects = []Redirect{
				{Name: "orders", To: all}, {Name: "orders", Port: 81, To: one},
				{Name: "orders", Port: 53, To: netip.MustParseAddrPort(udp.LocalAddr().String())}, {Name: "only", Port: 80, To: all},
			}
			s, err := o.Start(t.Context(), "api", l.observer())
			if err != nil {
				if errors.Is(err, errors.ErrUnsupported) {
					hooktest.Unavailable(t, "netns", err)
				}
				t.Fatal(err)
			}
			defer s.Close()
			run := startHooked
			if rung == hook.Relay {
				run = relayHook
			}
			addrs := s.now.Load().redirects.addrs
			for _, tt := range []struct {
				dst  netip.AddrPort
				want string
			}{
				{netip.AddrPortFrom(addrs["orders"], 80), "all ports"},
				{netip.AddrPortFrom(addrs["orders"], 81), "port 81"},
				{netip.AddrPortFrom(addrs["only"], 80), "all ports"},
				{netip.AddrPortFrom(addrs["only"], 81), "ECONNREFUSED"},
			} {
				if got := run(t, s, hooktest.Self, "__app", "talk", tt.dst.String()).line(); got != tt.want {
					t.Errorf("%s: %q, want %q", tt.dst, got, tt.want)
				}
			}
			if got := run(t, s, hooktest.Self, "__app", "talk", netip.AddrPortFrom(addrs["orders"], 53).String(), "udp").line(); got != "hello" {
				t.Errorf("UDP: %q", got)
			}
			e, err := s.ExplainName(t.Context(), "orders", "A")
			if err != nil || len(e.Answer) != 1 {
				t.Errorf("explain: %+v, %v", e, err)
			}
			if st := s.Status(t.Context(), false); len(st.Redirects) != 4 {
				t.Errorf("status %+v", st.Redirects)
			}
			if rung == hook.Seccomp {
				f, err := newProgram(t, s).connect(orders, unix.SOCK_STREAM)
				if err != nil {
					t.Fatal(err)
				}
				echo(t, f, "still the cluster's")
			}
		})
	}
}
