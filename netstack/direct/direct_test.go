package direct

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/link"
	"github.com/borrownet/borrownet/netstack/link/linktest"
)

// patience is how long what takes milliseconds may take on a machine that is busy.
const patience = 30 * time.Second

func key(t *testing.T) (private, public [32]byte) {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(k.Bytes()), [32]byte(k.PublicKey().Bytes())
}

// socket is a UDP socket of this machine that can be cut off.
type socket struct {
	net.PacketConn
	cut atomic.Bool
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	if s.cut.Load() {
		return len(b), nil
	}
	return s.PacketConn.WriteTo(b, to)
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(b)
		if err != nil || !s.cut.Load() {
			return n, from, err
		}
	}
}

func udp(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// server runs Serve on conn until the test ends; carriers are echoes.
type server struct {
	addr      netip.AddrPort
	id        link.Identity
	sum       []byte // of its certificate
	strangers atomic.Int64
	ended     chan error
	stop      context.CancelFunc
}

func serve(t *testing.T, conn net.PacketConn, idle time.Duration) *server {
	t.Helper()
	var client, agent [32]byte
	s := &server{ended: make(chan error, 1)}
	s.id.Private, client = key(t)
	agent, s.id.Peer = key(t)
	v, err := link.NewVerifier(agent, client)
	if err != nil {
		t.Fatal(err)
	}
	s.addr, _ = addrPort(conn.LocalAddr())
	certificate, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	s.sum = certificate.Sum()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { // joined below
		s.ended <- Serve(ctx, ServerConfig{
			Conn: conn, Certificate: certificate, Verifier: v, Idle: idle, Stranger: func() { s.strangers.Add(1) },
			Admit: func(ctx context.Context, c io.ReadWriteCloser) {
				defer c.Close()
				if _, _, err := v.Verify(ctx, c); err == nil {
					_, _ = io.Copy(c, struct{ io.Reader }{c})
				}
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		linktest.Within(t, patience, "the end of Serve", func() {
			if err := <-s.ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
			s.ended <- nil
		})
	})
	return s
}

func (s *server) dial(t *testing.T) *Path {
	t.Helper()
	// A busy machine may stand still for longer than Dial waits.
	for end := time.Now().Add(patience); ; {
		p, err := Dial(t.Context(), udp(t), s.addr, s.id, s.sum)
		if err == nil {
			t.Cleanup(p.Close)
			return p
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func (s *server) open(t *testing.T, p *Path) *Carrier {
	t.Helper()
	c, err := p.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Prove(t.Context(), c, s.id); err != nil {
		t.Fatal(err)
	}
	return c
}

func echoes(t *testing.T, c io.ReadWriter, size int) {
	t.Helper()
	sent := make([]byte, size)
	rand.Read(sent)
	var writing sync.WaitGroup
	writing.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	got := make([]byte, size)
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("read: %v", err)
	}
	writing.Wait()
	if !bytes.Equal(got, sent) {
		t.Error("other bytes come back")
	}
}

func TestCarriers(t *testing.T) {
	leaktest.Check(t)
	for _, tt := range []struct {
		name string
		conn net.PacketConn
	}{{"kernel", udp(t)}, {"other", &socket{PacketConn: udp(t)}}} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, tt.conn, time.Minute)
			p := s.dial(t)
			calls, bulk := s.open(t, p), s.open(t, p)
			calls.Prefer(true)
			bulk.Prefer(false)
			echoes(t, calls, 100)
			echoes(t, bulk, 4<<20)
			reading := make(chan error, 1)
			go func() { // ends with the carrier
				_, err := calls.Read(make([]byte, 1))
				reading <- err
			}()
			calls.Close()
			linktest.Within(t, patience, "Close unblocking Read", func() {
				if err := <-reading; err == nil {
					t.Error("Read goes on after Close")
				}
			})
			echoes(t, bulk, 1000)
			for range 3 * maxCarriers { // one after the other, as many as there are losses
				c := s.open(t, p)
				echoes(t, c, 10)
				c.Close()
			}
		})
	}
}

// TestStrangersGetNothing sends what is no knock, what is a stranger's and what was recorded, and QUIC without a knock.
func TestStrangersGetNothing(t *testing.T) {
	leaktest.Check(t)
	s := serve(t, udp(t), time.Minute)
	stranger := s.id
	stranger.Private, _ = key(t)
	mine, err := link.NewKnock(s.id)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := link.NewKnock(stranger)
	if err != nil {
		t.Fatal(err)
	}
	p := s.dial(t) // later than mine, which is what was recorded
	c := s.open(t, p)

	conn := udp(t)
	defer conn.Close()
	initial := make([]byte, 1200) // a long header of an unknown version, which QUIC would answer
	initial[0], initial[4] = 0xc0, 0x99
	for _, datagram := range [][]byte{{}, {1}, initial, theirs.Datagram(), mine.Datagram(), make([]byte, link.KnockLen)} {
		if _, err := conn.WriteToUDPAddrPort(datagram, s.addr); err != nil {
			t.Fatal(err)
		}
	}
	linktest.Within(t, patience, "the server counting strangers", func() {
		for s.strangers.Load() < 6 {
			time.Sleep(time.Millisecond)
		}
	})
	echoes(t, c, 1000) // what comes later than the answers that there are not
	conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 2000)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stranger got %d bytes, %v", n, err)
	}
	if _, err := Dial(t.Context(), udp(t), s.addr, stranger, s.sum); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("a stranger's Dial: %v", err)
	}
	echoes(t, c, 1000)
}

// TestLaterPath makes a second path in the place of one that was left behind.
func TestLaterPath(t *testing.T) {
	leaktest.Check(t)
	s := serve(t, udp(t), time.Minute)
	first := s.dial(t)
	c := s.open(t, first)
	echoes(t, c, 10)
	second := s.dial(t)
	echoes(t, s.open(t, second), 10)
	linktest.Within(t, patience, "the end of the first path", func() { <-first.Done() })
	if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
		t.Error("a carrier of the first path goes on")
	}
}

// TestSilence cuts a path: both ends give it up, and the server ends when nobody comes back.
func TestSilence(t *testing.T) {
	leaktest.Check(t)
	conn := &socket{PacketConn: udp(t)}
	s := serve(t, conn, 10*time.Second) // longer than a path takes to be made on a machine that is busy
	p := s.dial(t)
	c := s.open(t, p)
	echoes(t, c, 10)
	conn.cut.Store(true)
	linktest.Within(t, time.Minute, "the path's end", func() {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("something is read")
		}
		<-p.Done()
	})
	if p.Err() == nil {
		t.Error("no reason why the path is lost")
	}
	linktest.Within(t, time.Minute, "the end of Serve", func() {
		if err := <-s.ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		s.ended <- nil
	})
}

// TestMiddleman: somebody on the path who passes the knock on, and its answer, and is then the other end of QUIC himself
// is not taken for the agent.
func TestMiddleman(t *testing.T) {
	leaktest.Check(t)
	s := serve(t, udp(t), time.Minute)
	his, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	s.sum = his.Sum()
	for end := time.Now().Add(patience); ; {
		var p *Path
		if p, err = Dial(t.Context(), udp(t), s.addr, s.id, s.sum); err == nil {
			p.Close()
		}
		if err == nil || errors.Is(err, ErrCertificate) || time.Now().After(end) {
			break // else the machine stood still for longer than Dial waits
		}
	}
	if !errors.Is(err, ErrCertificate) {
		t.Errorf("Dial: %v, want %v", err, ErrCertificate)
	}
}

func TestNobodyThere(t *testing.T) {
	leaktest.Check(t)
	s := serve(t, &socket{PacketConn: udp(t)}, time.Minute)
	nobody := udp(t)
	addr, _ := addrPort(nobody.LocalAddr())
	if _, err := Dial(t.Context(), udp(t), addr, s.id, s.sum); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("Dial: %v", err)
	}
	nobody.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, udp(t), s.addr, s.id, s.sum); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial of somebody who does not wait: %v", err)
	}
}
