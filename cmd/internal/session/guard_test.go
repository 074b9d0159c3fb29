package session

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
)

// startGuarded starts a session that keeps things from leaving.
func startGuarded(l *lab, readOnly bool, deny ...string) *Session {
	l.t.Helper()
	opening := l.opening()
	opening.req.ReadOnly, opening.req.Deny = readOnly, deny
	s, err := opening.Start(l.t.Context(), "api", l.observer())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	l.await(Ready)
	return s
}

const (
	safeCall = "GET /a HTTP/1.1\r\nHost: orders\r\n\r\n"
	payCall  = "POST /pay HTTP/1.1\r\nHost: orders\r\nContent-Length: 4\r\n\r\ncard"
)

// TestReadOnly lets a program of the session read from the cluster, of both families,
// and answers what would change something itself.
func TestReadOnly(t *testing.T) {
	s := startGuarded(newLab(t), true)
	p := newProgram(t, s)
	for _, dst := range []netip.AddrPort{orders, orders6} {
		f, err := p.connect(dst, unix.SOCK_STREAM)
		if err != nil {
			t.Fatalf("connect %s: %v", dst, err)
		}
		echo(t, f, safeCall)
		if _, err := f.WriteString(payCall); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(f), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusForbidden || string(text) != "borrownet: this session is read-only: POST orders/pay was not sent\n" {
			t.Errorf("answer %d %q, %v", resp.StatusCode, text, err)
		}
	}
	if _, err := p.connect(netip.AddrPortFrom(orders.Addr(), 81), unix.SOCK_STREAM); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
	u, err := p.connect(netip.AddrPortFrom(orders.Addr(), 7), unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, u, "datagrams pass")
	eventually(t, "two refusals", func() bool {
		g := s.Status(t.Context(), false).Guard
		return g != nil && g.ReadOnly && g.Refused == 2 && g.Denied == 0 && g.Last == "POST orders/pay"
	})
}

// TestDeny refuses connections, before anything is dialled.
func TestDeny(t *testing.T) {
	s := startGuarded(newLab(t), false, "192.0.2.8/30:80", "orders:80")
	p := newProgram(t, s)
	if _, err := p.connect(orders, unix.SOCK_STREAM); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a denied address: %v, want the errno of a prohibition", err)
	}
	f, err := p.connect(orders6, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, f, payCall) // nothing is read-only here
	// A SYN that is sent again, after a second without an answer, is denied again.
	if g := s.Status(t.Context(), false).Guard; g.Denied == 0 || g.Last != "a connection to "+orders.String() {
		t.Errorf("status %+v", g)
	}
}

// TestDenyRelayed does the same where programs are relayed, for each form of a denial.
func TestDenyRelayed(t *testing.T) {
	for _, tt := range []struct {
		deny   string
		denied bool
	}{
		{"orders", true},
		{"orders:80", true},
		{"orders:81", false},
		{"orders.shop.svc.cluster.local.", true},
		{"nobody", false},
		{"192.0.2.10", true},
		{"192.0.2.0/24", true},
		{"192.0.2.0/24:81", false},
		{"198.51.100.0/24", false},
		{":80", true},
		{":81", false},
		{"[2001:db8::/32]:80", false},
	} {
		t.Run(strings.ReplaceAll(tt.deny, "/", "-"), func(t *testing.T) {
			l := newLab(t)
			opening := l.opening()
			opening.req.Hook, opening.req.Deny = hook.Relay, []string{tt.deny}
			s, err := opening.Start(t.Context(), "api", l.observer())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			carry, err := (&exchange{s.ground}).OpenTCP(t.Context(), orders)
			if tt.denied != errors.Is(err, syscall.EACCES) || tt.denied != (s.locals.guard.denied.Load() == 1) {
				t.Errorf("got %v, %d denied", err, s.locals.guard.denied.Load())
			}
			if err == nil {
				carry(t.Context(), nil)
			}
		})
	}
}

func TestParseDenialFails(t *testing.T) {
	for _, text := range []string{"", ":", ":0", "a:b", "a b", "10.0.0.0/33", "10.0.0.1:99999"} {
		if d, err := ParseDenial(text); err == nil {
			t.Errorf("%q is %+v", text, d)
		}
	}
}

// TestGuardIsOff: without either nothing is looked into.
func TestGuardIsOff(t *testing.T) {
	s := newLab(t).start()
	if s.locals.guard != nil || s.Status(t.Context(), false).Guard != nil {
		t.Error("there is a guard")
	}
	var g *guarded
	if g.denies(t.Context(), orders) {
		t.Error("no guard denies")
	}
}
