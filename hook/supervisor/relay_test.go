package supervisor

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
)

func TestCarried(t *testing.T) {
	for _, tt := range []struct {
		name        string
		kind, proto int
		want        error
	}{
		{"tcp", unix.SOCK_STREAM, 0, nil},
		{"mptcp", unix.SOCK_STREAM, unix.IPPROTO_MPTCP, nil},
		{"sctp", unix.SOCK_STREAM, unix.IPPROTO_SCTP, unix.EPROTONOSUPPORT},
		{"udp", unix.SOCK_DGRAM, unix.IPPROTO_UDP, nil},
		{"udplite", unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, unix.EPROTONOSUPPORT},
		{"ping", unix.SOCK_DGRAM, unix.IPPROTO_ICMP, unix.EACCES},
		{"raw", unix.SOCK_RAW, unix.IPPROTO_RAW, unix.EPERM},
		{"seqpacket", unix.SOCK_SEQPACKET, 0, unix.ESOCKTNOSUPPORT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, errno := carried(tt.kind, tt.proto); tt.want == nil && errno != 0 || tt.want != nil && errno != tt.want {
				t.Errorf("got %v, want %v", errno, tt.want)
			}
		})
	}
}

func TestSockaddr(t *testing.T) {
	for _, tt := range []struct {
		text   string
		domain int
	}{
		{"192.0.2.1:80", unix.AF_INET}, {"192.0.2.1:80", unix.AF_INET6}, {"[2001:db8::1]:443", unix.AF_INET6},
	} {
		want := netip.MustParseAddrPort(tt.text)
		if got, ok := parseSockaddr(formatSockaddr(tt.domain, want)); !ok || got != want {
			t.Errorf("%s in family %d: got %v, %v", tt.text, tt.domain, got, ok)
		}
		if got := farend.AddrPort(farend.Sockaddr(tt.domain, want)); got != want {
			t.Errorf("%s in family %d: got %v", tt.text, tt.domain, got)
		}
	}
	if _, ok := parseSockaddr([]byte{2, 0, 0, 80, 1, 2, 3}); ok {
		t.Error("a short address was read")
	}
	s := &relaySocket{domain: unix.AF_INET, typ: unix.SOCK_STREAM}
	for _, tt := range []struct {
		dst  string
		want error
	}{
		{"224.0.0.251:5353", unix.ENETUNREACH}, {"255.255.255.255:67", unix.ENETUNREACH}, {"[fe80::1]:1", unix.EAFNOSUPPORT},
	} {
		dst := netip.MustParseAddrPort(tt.dst)
		domain := unix.AF_INET
		if dst.Addr().Is6() {
			domain = unix.AF_INET6
		}
		if _, errno := s.destination(formatSockaddr(domain, dst)); errno != tt.want {
			t.Errorf("%s: %v, want %v", tt.dst, errno, tt.want)
		}
	}
}

func TestDescendants(t *testing.T) {
	got, err := descendants(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, os.Getpid()) {
		t.Errorf("this process is not below its parent: %v", got)
	}
}

// TestTableSettles drops what nobody has, and only after it was given away.
func TestTableSettles(t *testing.T) {
	table := newRelayTable()
	defer table.clear()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := table.add(fd, unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	if n := table.settle(1, 0); n != 0 || table.len() != 1 {
		t.Fatalf("%d dropped before a program had it", n)
	}
	table.given(s)
	if n := table.settle(2, 0); n != 0 {
		t.Fatalf("%d dropped at the first look", n)
	}
	if n := table.settle(2, 0); n != 1 || table.len() != 0 {
		t.Errorf("%d dropped at the second look, %d left", n, table.len())
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the duplicate is still open: %v", err)
	}
}
