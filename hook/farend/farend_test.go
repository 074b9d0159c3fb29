package farend

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newStream is a stream as a program has it.
func newStream(t *testing.T, flags int) Socket {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return Socket{FD: fd, Domain: unix.AF_INET}
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
	for _, c := range []Socket{stranger, program} {
		if err := unix.Connect(c.FD, Sockaddr(c.Domain, at)); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := acceptFrom(ln, Name(program.FD))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if got := Peer(fd); got != Name(program.FD) {
		t.Errorf("far end of %v, want %v", got, Name(program.FD))
	}
	if !Poll(stranger.FD, unix.POLLIN, time.Second) {
		t.Error("the stranger is not hung up on")
	}
}

// TestParking keeps a connect unanswered, against a stranger too, and then lets
// it succeed or be refused.
func TestParking(t *testing.T) {
	for _, meets := range []bool{true, false} {
		s := newStream(t, unix.SOCK_NONBLOCK)
		p, err := Park(s)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if Poll(s.FD, unix.POLLOUT, 50*time.Millisecond) {
			t.Fatalf("an answer came: state %d", State(s.FD))
		}
		stranger := newStream(t, unix.SOCK_NONBLOCK)
		if err := unix.Connect(stranger.FD, Sockaddr(s.Domain, p.at)); err != unix.EINPROGRESS {
			t.Errorf("stranger: %v", err)
		}
		if Poll(stranger.FD, unix.POLLOUT, 50*time.Millisecond) {
			t.Errorf("the stranger got in: state %d", State(stranger.FD))
		}
		if meets {
			fd, err := p.bound()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, Sockaddr(s.Domain, Name(s.FD))); err != nil && err != unix.EINPROGRESS {
				t.Fatal(err)
			}
			if !Poll(s.FD, unix.POLLOUT, time.Second) || State(s.FD) != Established || Peer(s.FD) != p.at {
				t.Errorf("not connected: state %d", State(s.FD))
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
		Poll(s.FD, unix.POLLOUT, 5*time.Second)
		if v, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || v != int(unix.ECONNREFUSED) {
			t.Errorf("SO_ERROR %d, %v, want ECONNREFUSED", v, err)
		}
	}
}
