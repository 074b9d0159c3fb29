// Package netstacktest joins stacks for tests.
package netstacktest

import (
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/borrownet/borrownet/netstack"
)

// Pair makes two stacks and joins them back to back: what leaves one is
// delivered to the other. Both are closed, and the goroutines in between have
// ended, when the test's cleanup is over.
func Pair(tb testing.TB, a, b netstack.Config) (*netstack.Stack, *netstack.Stack) {
	tb.Helper()
	sa, sb := New(tb, a), New(tb, b)
	Join(tb, sa, sb)
	return sa, sb
}

// New makes a stack that is closed when the test ends.
func New(tb testing.TB, cfg netstack.Config) *netstack.Stack {
	tb.Helper()
	s, err := netstack.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			tb.Errorf("close stack %s: %v", cfg.Name, err)
		}
	})
	return s
}

// Join carries packets both ways between two stacks until one is closed.
func Join(tb testing.TB, a, b *netstack.Stack) {
	tb.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { Carry(a, b.Deliver) })
	wg.Go(func() { Carry(b, a.Deliver) })
	tb.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
}

// Carry calls deliver for each packet that leaves s until s is closed.
func Carry(s *netstack.Stack, deliver func(pkt []byte)) {
	const batch = 8
	bufs := make([][]byte, batch)
	for i := range bufs {
		bufs[i] = make([]byte, 1<<16)
	}
	sizes := make([]int, batch)
	for {
		n, err := s.ReadPackets(bufs, sizes, 0)
		if err != nil {
			return
		}
		for i := range n {
			deliver(bufs[i][:sizes[i]])
		}
	}
}
