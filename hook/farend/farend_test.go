package farend

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long what takes milliseconds may take on a machine that is busy.
const patience = 30 * time.Second

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
	if !Poll(stranger.FD, unix.POLLIN, patience) {
		t.Error("the stranger is not hung up on")
	}
}

// TestMeetHasty meets programs that end their direction as soon as they are connected.
func TestMeetHasty(t *testing.T) {
	for range 100 {
		s := newStream(t, unix.SOCK_NONBLOCK)
		p, err := Park(s)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			if !Poll(s.FD, unix.POLLOUT, loopTimeout) {
				ended <- unix.ETIMEDOUT
				return
			}
			_, err := unix.Write(s.FD, []byte("all"))
			ended <- errors.Join(err, unix.Shutdown(s.FD, unix.SHUT_WR))
		}()
		err = p.Meet(s, func(fd int) error {
			if err := <-ended; err != nil {
				return err
			}
			buf := make([]byte, 10)
			Poll(fd, unix.POLLIN, loopTimeout)
			if n, err := unix.Read(fd, buf); err != nil || string(buf[:n]) != "all" {
				return fmt.Errorf("heard %d bytes, %v", n, err)
			}
			return nil
		})
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
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
			if !Poll(s.FD, unix.POLLOUT, patience) || State(s.FD) != Established || Peer(s.FD) != p.at {
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
		Poll(s.FD, unix.POLLOUT, patience)
		if v, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || v != int(unix.ECONNREFUSED) {
			t.Errorf("SO_ERROR %d, %v, want ECONNREFUSED", v, err)
		}
	}
}

// TestReserved keeps the port of a socket that is gone as long as there is a listener,
// but not from who asks for it by its number.
func TestReserved(t *testing.T) {
	var r Reserved
	defer r.Close()
	for port := FirstAutoPort; ; port++ {
		if port > 65000 {
			t.Fatal("no port is free")
		}
		// Addresses of their own stand for the laptop's and the session's namespaces.
		laptop, session := [4]byte{127, 0, 0, 1}, [4]byte{127, 0, 0, 2}
		listener, bound := newStream(t, 0), newStream(t, 0)
		if unix.Bind(listener.FD, &unix.SockaddrInet4{Addr: laptop, Port: port}) != nil || unix.Listen(listener.FD, 1) != nil ||
			unix.Bind(bound.FD, &unix.SockaddrInet4{Addr: session, Port: port}) != nil {
			continue
		}
		rebind := func(reuse int) error {
			s := newStream(t, 0)
			return errors.Join(unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse),
				unix.Bind(s.FD, &unix.SockaddrInet4{Addr: session, Port: port}))
		}
		r.Keep(bound.FD)
		unix.Close(bound.FD)
		if err := rebind(0); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("without SO_REUSEADDR: %v, want EADDRINUSE", err)
		}
		if err := rebind(1); err != nil {
			t.Errorf("with SO_REUSEADDR: %v", err)
		}
		unix.Close(listener.FD)
		limit := time.Now().Add(patience)
		for {
			r.mu.Lock()
			left := len(r.held)
			r.mu.Unlock()
			if left == 0 {
				return
			}
			if time.Now().After(limit) {
				t.Fatal("the port is kept without a listener")
			}
			<-time.After(20 * time.Millisecond)
		}
	}
}
