package netstack_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// TestStalledPeersShare fills conns whose peers do not read, from both ends,
// until nothing more fits. What they hold is bounded by the budget, not by their
// number; then all of it arrives, and what was granted is free again.
func TestStalledPeersShare(t *testing.T) {
	leaktest.Check(t)
	const (
		conns  = 128
		budget = 1 << 20
		// On either side each power of two of conns may have got half a budget to
		// begin with, and grants are one and a half.
		most = 2 * (7*budget/2 + 3*budget/2)
	)
	near, far := serverConfig, clientConfig
	near.Buffers, far.Buffers = budget, budget
	a, b := netstacktest.Pair(t, far, near)
	pairs := dialMany(t, a, b, conns)

	var held int64
	sent := make([]int64, conns)
	for i, p := range pairs {
		sent[i] = fill(t, p[1], 0)
		held += sent[i]
	}
	t.Logf("%d conns hold %d KiB", conns, held>>10)
	if held > most {
		t.Errorf("they took %d bytes for peers that do not read, want at most %d", held, most)
	}
	var wg sync.WaitGroup
	for i, p := range pairs {
		wg.Go(func() {
			p[1].CloseWrite()
			n, err := io.Copy(io.Discard, struct{ io.Reader }{p[0]})
			if err != nil || n != sent[i] {
				t.Errorf("conn %d: %d bytes of %d arrived, %v", i, n, sent[i], err)
			}
			p[0].Close()
			p[1].Close()
		})
	}
	wg.Wait()
	await(t, "end of all conns", func() bool { return b.Stats().Senders == 0 })
}

// dialMany connects a to b n times; the pairs are closed with the stacks.
func dialMany(t *testing.T, a, b *netstack.Stack, n int) [][2]*netstack.TCPConn {
	t.Helper()
	accepted := make(chan *netstack.TCPConn, n)
	b.ForwardTCP(n, func(r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c
	})
	pairs := make([][2]*netstack.TCPConn, n)
	for i := range pairs {
		c, err := a.DialTCP(testContext(t), netip.AddrPort{}, port(foreign4, uint16(1000+i)))
		if err != nil {
			t.Fatal(err)
		}
		pairs[i] = [2]*netstack.TCPConn{c, <-accepted}
	}
	return pairs
}

// fill writes to c until nothing more fits, at least so much, and returns how much did.
func fill(t *testing.T, c *netstack.TCPConn, least int64) (n int64) {
	t.Helper()
	buf := make([]byte, 4<<10)
	for {
		wait := 50 * time.Millisecond
		if n < least {
			wait = patience
		}
		c.SetWriteDeadline(time.Now().Add(wait))
		k, err := c.Write(buf)
		n += int64(k)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.SetWriteDeadline(time.Time{})
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGrantsMakeRoom: among conns that rest, one that sends or receives much is
// not kept to the small part that each begins with, and a Write that waits for
// room goes on when the others have gone.
func TestGrantsMakeRoom(t *testing.T) {
	leaktest.Check(t)
	cfg := serverConfig
	cfg.Buffers = 1 << 20
	a, b := netstacktest.Pair(t, clientConfig, cfg)
	pairs := dialMany(t, a, b, 64) // 16 KiB each
	few := fill(t, pairs[0][1], 256<<10)
	for _, p := range pairs[1:] {
		p[0].Reset()
		p[1].Reset()
	}
	await(t, "end of the others", func() bool { return b.Stats().Senders == 1 })
	more := fill(t, pairs[0][1], 1)
	if few < 256<<10 || more == 0 {
		t.Errorf("%d bytes fitted among 64 conns, %d more alone; want at least 256 KiB, and some", few, more)
	}
	done := make(chan error, 1)
	go func() {
		_, err := pairs[0][1].Write(make([]byte, 1<<20))
		done <- err
	}()
	go io.Copy(io.Discard, struct{ io.Reader }{pairs[0][0]})
	if err := <-done; err != nil {
		t.Errorf("write of a conn whose peer reads again: %v", err)
	}
}

// TestBudgetKeepsBytes moves data through conns that have little room each, and
// loses nothing: a receive buffer never shrinks below the window it has promised.
func TestBudgetKeepsBytes(t *testing.T) {
	leaktest.Check(t)
	const size = 256 << 10
	cfg := serverConfig
	cfg.Buffers = 1 << 20
	a, b := netstacktest.Pair(t, clientConfig, cfg)
	b.ForwardTCP(200, func(r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
		c.CloseWrite()
	})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			c, err := a.DialTCP(testContext(t), netip.AddrPort{}, port(foreign4, uint16(2000+i)))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			var sent []byte
			var sending sync.WaitGroup
			sending.Go(func() {
				var err error
				if sent, err = sendRandom(c, byte(i), size); err != nil {
					t.Error(err)
				}
			})
			got, n, err := receive(c)
			sending.Wait()
			if err != nil || n != size || !bytes.Equal(got, sent) {
				t.Errorf("conn %d: echo of %d bytes, %v", i, n, err)
			}
		})
	}
	wg.Wait()
	for _, st := range []netstack.Stats{a.Stats(), b.Stats()} {
		if st.LinkDropsTCP != 0 || st.LinkDropsAgain != 0 {
			t.Errorf("a stream must lose nothing: %+v", st)
		}
	}
}
