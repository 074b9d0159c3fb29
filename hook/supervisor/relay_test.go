package supervisor

import (
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newStream is a tracked stream as a program has it.
func newStream(t *testing.T, flags int) *relaySocket {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &relaySocket{fd: fd, domain: unix.AF_INET, typ: unix.SOCK_STREAM}
}

// TestFarEndTakesNoStranger lets somebody else connect to the listener first.
func TestFarEndTakesNoStranger(t *testing.T) {
	s := newStream(t, 0)
	ln, at, err := s.listenLoop(8, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ln)
	stranger, program := newStream(t, 0), newStream(t, 0)
	for _, c := range []*relaySocket{stranger, program} {
		if err := unix.Connect(c.fd, sockaddrOf(c.domain, at)); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := acceptFrom(ln, nameOf(program.fd))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if got := peerOf(fd); got != nameOf(program.fd) {
		t.Errorf("far end of %v, want %v", got, nameOf(program.fd))
	}
	if !poll(stranger.fd, unix.POLLIN, time.Second) {
		t.Error("the stranger is not hung up on")
	}
}

// TestParking keeps a connect unanswered, against a stranger too, and then lets
// it succeed or be refused.
func TestParking(t *testing.T) {
	for _, meets := range []bool{true, false} {
		s := newStream(t, unix.SOCK_NONBLOCK)
		p, err := park(s)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if poll(s.fd, unix.POLLOUT, 50*time.Millisecond) {
			t.Fatalf("an answer came: state %d", stateOf(s.fd))
		}
		stranger := newStream(t, unix.SOCK_NONBLOCK)
		if err := unix.Connect(stranger.fd, sockaddrOf(s.domain, p.at)); err != unix.EINPROGRESS {
			t.Errorf("stranger: %v", err)
		}
		if poll(stranger.fd, unix.POLLOUT, 50*time.Millisecond) {
			t.Errorf("the stranger got in: state %d", stateOf(stranger.fd))
		}
		if meets {
			fd, err := p.bound()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, sockaddrOf(s.domain, nameOf(s.fd))); err != nil && err != unix.EINPROGRESS {
				t.Fatal(err)
			}
			if !poll(s.fd, unix.POLLOUT, time.Second) || stateOf(s.fd) != tcpEstablished || peerOf(s.fd) != p.at {
				t.Errorf("not connected: state %d", stateOf(s.fd))
			}
			continue
		}
		hold, err := p.bound()
		if err != nil {
			t.Fatal(err)
		}
		p.hold = hold
		unix.Close(p.ln)
		p.ln = -1
		poll(s.fd, unix.POLLOUT, 5*time.Second)
		if v, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || v != int(unix.ECONNREFUSED) {
			t.Errorf("SO_ERROR %d, %v, want ECONNREFUSED", v, err)
		}
	}
}

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
		if got := addrPortOf(sockaddrOf(tt.domain, want)); got != want {
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
