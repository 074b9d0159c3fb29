package netstack_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// sendRandom writes size random bytes and ends the direction. It returns their
// hash.
func sendRandom(c *netstack.TCPConn, seed byte, size int64) ([]byte, error) {
	h := sha256.New()
	r := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{seed}), size), h)
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, r, make([]byte, 128<<10)); err != nil {
		return nil, err
	}
	return h.Sum(nil), c.CloseWrite()
}

func receive(c *netstack.TCPConn) ([]byte, int64, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{c}, make([]byte, 128<<10))
	return h.Sum(nil), n, err
}

func TestBulkBothWays(t *testing.T) {
	leaktest.Check(t)
	const size = 64 << 20
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	c1, c2 := connect(t, a, b, port(server4, 80))
	began := time.Now()
	var wg sync.WaitGroup
	var sent, got [2][]byte
	for i, c := range []*netstack.TCPConn{c1, c2} {
		wg.Go(func() {
			var err error
			if sent[i], err = sendRandom(c, byte(i), size); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			sum, n, err := receive(c)
			if err != nil || n != size {
				t.Errorf("received %d bytes, %v", n, err)
			}
			got[1-i] = sum
		})
	}
	wg.Wait()
	for i := range sent {
		if !bytes.Equal(sent[i], got[i]) {
			t.Errorf("wrong bytes in direction %d", i)
		}
	}
	took := time.Since(began)
	for _, st := range []netstack.Stats{a.Stats(), b.Stats()} {
		// A timer expires after a second at least, which only a machine that stands still needs for an answer.
		if st.TCPTimeouts > uint64(took/time.Second) || st.TCPTimeouts == 0 && st.TCPRetransmits != 0 || st.LinkDropsTCP != 0 {
			t.Errorf("a stream must lose nothing, in %v: %+v", took, st)
		}
	}
}

func TestManyConns(t *testing.T) {
	leaktest.Check(t)
	const conns = 500
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	b.ForwardTCP(conns, func(r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := io.Copy(c, c); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
	})
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			dst := port(foreign4, uint16(1000+i))
			if i%2 == 1 {
				dst = port(foreign6, uint16(1000+i))
			}
			c, err := a.DialTCP(ctx, netip.AddrPort{}, dst)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			want := bytes.Repeat([]byte(fmt.Sprintf("conn %d.", i)), 1000)
			if _, err := c.Write(want); err != nil {
				t.Error(err)
			}
			c.CloseWrite()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("conn %d: echo of %d bytes is %d bytes, %v", i, len(want), len(got), err)
			}
		})
	}
	wg.Wait()
	if st := b.Stats(); st.TCPAccepted != conns || st.SYNDrops != 0 || st.SYNInFlight != 0 {
		t.Errorf("stats = %+v", st)
	}
	await(t, "end of all senders", func() bool { return a.Stats().Senders == 0 && b.Stats().Senders == 0 })
}

func TestForwardTCPLimits(t *testing.T) {
	leaktest.Check(t)
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	requests := make(chan *netstack.TCPRequest, 10)
	b.ForwardTCP(2, func(r *netstack.TCPRequest) { requests <- r })
	ctx := testContext(t)
	results := make(chan error, 3)
	dial := func(p uint16) {
		c, err := a.DialTCP(ctx, netip.AddrPort{}, port(foreign4, p))
		if err == nil {
			c.Close()
		}
		results <- err
	}
	go dial(1)
	go dial(2)
	r1, r2 := <-requests, <-requests
	go dial(3)
	known := r1.Flow()
	b.Deliver(segment(known.Src.Addr(), known.Dst.Addr(), known.Src.Port(), known.Dst.Port(), header.TCPFlagSyn))
	// The third SYN is dropped, and comes again when the first two are decided.
	for st := b.Stats(); st.SYNDrops == 0; st = b.Stats() {
		select {
		case <-requests:
			t.Fatal("a third request in flight")
		case <-ctx.Done():
			t.Fatalf("stats = %+v", st)
		case <-time.After(time.Millisecond):
		}
	}
	// A client that waits for more than a second sends its SYN again, too.
	if st := b.Stats(); st.SYNInFlight != 2 || st.SYNDuplicates == 0 {
		t.Errorf("stats = %+v, want 2 in flight and a duplicate", st)
	}
	r1.Reject(syscall.ECONNREFUSED)
	r2.Reject(syscall.ECONNREFUSED)
	for refused := 0; refused < 3; {
		select {
		case r := <-requests: // the third, or one of the first two that was on its way again
			r.Reject(syscall.ECONNREFUSED)
		case err := <-results:
			if refused++; !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("DialTCP = %v, want ECONNREFUSED", err)
			}
		}
	}
}

// A gate carries packets between two stacks while it is open.
type gate struct {
	mu   sync.Mutex
	cond sync.Cond
	open bool
}

func newGate(open bool) *gate {
	g := &gate{open: open}
	g.cond.L = &g.mu
	return g
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = open
	g.cond.Broadcast()
}

func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.open {
		g.cond.Wait()
	}
}

// joinGated is netstacktest.Join through a gate for each direction.
func joinGated(t *testing.T, a, b *netstack.Stack) (ab, ba *gate) {
	ab, ba = newGate(true), newGate(true)
	var wg sync.WaitGroup
	wg.Go(func() { netstacktest.Carry(a, func(p []byte) { ab.wait(); b.Deliver(p) }) })
	wg.Go(func() { netstacktest.Carry(b, func(p []byte) { ba.wait(); a.Deliver(p) }) })
	t.Cleanup(func() {
		a.Close()
		b.Close()
		ab.set(true)
		ba.set(true)
		wg.Wait()
	})
	return ab, ba
}

// patience is how long something may take that needs milliseconds, on a machine
// with other things to do. A deadlock takes longer.
const patience = 30 * time.Second

// within fails the test if f takes longer than d.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took > d {
		t.Errorf("%s took %v, want less than %v", what, took, d)
	}
}

// saturate fills the link of s with a window of data of each conn, whose writers it
// leaves blocked in wg. The gate must be shut.
func saturate(t *testing.T, s *netstack.Stack, conns []*netstack.TCPConn, wg *sync.WaitGroup) {
	t.Helper()
	for _, c := range conns {
		wg.Go(func() {
			if _, err := c.Write(make([]byte, 16<<20)); err == nil {
				t.Error("16 MiB found room in a stalled link")
			}
		})
	}
	await(t, "a window of each conn", func() bool { return s.Stats().LinkQueued >= uint64(len(conns))*60000 })
}

const stalledConns = 16

// TestStalledLink is the invariant of the link: whatever both peers do while
// neither link is read, Deliver returns, deadlines hold, and Close works.
func TestStalledLink(t *testing.T) {
	leaktest.Check(t)
	a, b := netstacktest.New(t, clientConfig), netstacktest.New(t, serverConfig)
	ab, ba := joinGated(t, a, b)
	b.ForwardUDP(answerUDP(b))
	var as, bs []*netstack.TCPConn
	// Without answers each conn sends one window of 64 KiB.
	for i := range stalledConns {
		c1, c2 := connect(t, a, b, port(server4, uint16(80+i)))
		as, bs = append(as, c1), append(bs, c2)
	}
	quiet, peer := connect(t, a, b, port(server6, 79))
	if _, err := peer.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(quiet, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	ab.set(false)
	ba.set(false)
	var wg sync.WaitGroup
	saturate(t, a, as, &wg)
	saturate(t, b, bs, &wg)

	within(t, patience, "Deliver into a stalled stack", func() {
		for i := range 500 {
			// Segments of no conn, of conns whose senders are blocked, and all
			// kinds of ICMP.
			for range 4 {
				b.Deliver(segment(client4, server4, uint16(i), 9, 0x10))
			}
			b.Deliver(segment(client4, server4, uint16(tcpPort(as[i%stalledConns].LocalAddr())), uint16(80+i%stalledConns), 0x10))
			b.Deliver(tooBig(server4, client4, uint16(80+i%stalledConns), tcpPort(as[i%stalledConns].LocalAddr())))
			b.Deliver(echoRequest(client4, server4))
			b.Deliver(datagram(client4, foreign4, 1, 2, "x"))
		}
	})
	if st := b.Stats(); st.LinkDropsTCP == 0 || st.LinkDropsDatagram == 0 {
		t.Errorf("nothing was dropped: %+v", st)
	}
	within(t, patience, "Write with a deadline", func() {
		quiet.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := quiet.Write(make([]byte, 16<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %v, want os.ErrDeadlineExceeded", err)
		}
	})
	within(t, patience, "deadline of a blocked Write", func() {
		as[0].SetDeadline(time.Now())
		if _, err := as[0].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v, want os.ErrDeadlineExceeded", err)
		}
	})
	within(t, patience, "Close of a conn with a blocked Write", func() { as[1].Close() })
	within(t, patience, "Reset of a conn with a blocked Write", func() { as[2].Reset() })
	within(t, patience, "Close of a stack", func() { a.Close() })
	within(t, patience, "Close of its peer", func() { b.Close() })
	within(t, patience, "the end of all Writes", wg.Wait)
	if _, err := as[3].Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close of the stack = %v, want net.ErrClosed", err)
	}
}

// answerUDP returns a handler that answers, from inside Deliver.
func answerUDP(s *netstack.Stack) func(f flow.Flow, payload []byte) {
	return func(f flow.Flow, payload []byte) { s.SendUDP(f.Dst, f.Src, payload) }
}

// TestStallEnds checks that after a stall everything arrives.
func TestStallEnds(t *testing.T) {
	leaktest.Check(t)
	const size = 8 << 20
	a, b := netstacktest.New(t, clientConfig), netstacktest.New(t, serverConfig)
	ab, ba := joinGated(t, a, b)
	c1, c2 := connect(t, a, b, port(server4, 80))
	ab.set(false)
	ba.set(false)
	var wg sync.WaitGroup
	sums := make(chan string, 4)
	for i, c := range []*netstack.TCPConn{c1, c2} {
		wg.Go(func() {
			sum, err := sendRandom(c, byte(i), size)
			if err != nil {
				t.Error(err)
			}
			sums <- fmt.Sprintf("%d %x", i, sum)
		})
		wg.Go(func() {
			sum, n, err := receive(c)
			if err != nil || n != size {
				t.Errorf("received %d bytes, %v", n, err)
			}
			sums <- fmt.Sprintf("%d %x", 1-i, sum)
		})
	}
	sending := func(s *netstack.Stack) bool { st := s.Stats(); return st.BytesOut+st.LinkQueued > 60000 }
	await(t, "data on its way", func() bool { return sending(a) && sending(b) })
	ab.set(true)
	ba.set(true)
	wg.Wait()
	seen := make(map[string]int)
	for range 4 {
		seen[<-sums]++
	}
	if len(seen) != 2 {
		t.Errorf("wrong bytes: %v", seen)
	}
}

func TestCloseFailsPendingCalls(t *testing.T) {
	leaktest.Check(t)
	a, b := netstacktest.Pair(t, clientConfig, serverConfig)
	requests := make(chan *netstack.TCPRequest, 1)
	b.ForwardTCP(10, func(r *netstack.TCPRequest) { requests <- r })
	c1, c2 := connect(t, a, b, port(server4, 80))
	udp, err := a.DialUDP(netip.AddrPort{}, port(server4, 53))
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.ListenTCP(port(client4, 80))
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"Read":     func() error { _, err := c1.Read(make([]byte, 1)); return err },
		"Write":    func() error { _, err := c1.Write(make([]byte, 64<<20)); return err },
		"Read-UDP": func() error { _, err := udp.Read(make([]byte, 1)); return err },
		"Accept":   func() error { _, err := l.Accept(); return err },
		"DialTCP":  func() error { _, err := a.DialTCP(t.Context(), netip.AddrPort{}, port(foreign4, 80)); return err },
	}
	var wg sync.WaitGroup
	for name, call := range calls {
		wg.Go(func() {
			if err := call(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s = %v, want net.ErrClosed", name, err)
			}
		})
	}
	r := <-requests
	within(t, patience, "Close", func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	// An Accept that waits for a client that is gone.
	accepted := make(chan error, 1)
	go func() {
		_, err := r.Accept()
		accepted <- err
	}()
	within(t, patience, "Close", func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept = %v, want net.ErrClosed", err)
		}
	})
	for name, call := range map[string]func() error{
		"Close":       a.Close,
		"DialTCP":     calls["DialTCP"],
		"DialUDP":     func() error { _, err := a.DialUDP(netip.AddrPort{}, port(server4, 53)); return err },
		"ListenTCP":   func() error { _, err := a.ListenTCP(port(client4, 81)); return err },
		"SendUDP":     func() error { return a.SendUDP(port(client4, 1), port(server4, 2), nil) },
		"SendEcho":    func() error { return a.SendEchoReply(netstack.Echo{Src: server4, Dst: client4}) },
		"ReadPackets": func() error { _, err := a.ReadPackets([][]byte{nil}, []int{0}, 0); return err },
		"Write":       func() error { _, err := c2.Write([]byte("x")); return err },
		"CloseWrite":  c2.CloseWrite,
		"SetDeadline": func() error { return c2.SetDeadline(time.Now()) },
	} {
		if err := call(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close = %v, want net.ErrClosed", name, err)
		}
	}
	a.Deliver(segment(server4, client4, 1, 2, 0x10))
}
