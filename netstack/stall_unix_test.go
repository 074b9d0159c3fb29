//go:build unix

package netstack_test

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestStallIsIdle checks that a stall costs no CPU, however long.
func TestStallIsIdle(t *testing.T) {
	leaktest.Check(t)
	a, b := netstacktest.New(t, clientConfig), netstacktest.New(t, serverConfig)
	ab, ba := joinGated(t, a, b)
	var as, bs []*netstack.TCPConn
	for i := range stalledConns {
		c1, c2 := connect(t, a, b, port(server4, uint16(80+i)))
		as, bs = append(as, c1), append(bs, c2)
	}
	ab.set(false)
	ba.set(false)
	var wg sync.WaitGroup
	saturate(t, a, as, &wg)
	saturate(t, b, bs, &wg)
	await(t, "a timeout of each conn", func() bool { return b.Stats().TCPTimeouts >= stalledConns/2 })
	for i := range stalledConns {
		b.Deliver(segment(client4, server4, tcpPort(as[i].LocalAddr()), uint16(80+i), 0x10))
	}
	// What came before may go on for a moment: the garbage collector, retransmissions.
	const watch = 300 * time.Millisecond
	used := watch
	for end := time.Now().Add(patience); used > watch/3 && time.Now().Before(end); {
		before := cpuTime(t)
		<-time.After(watch)
		used = cpuTime(t) - before
	}
	if used > watch/3 {
		t.Errorf("%v of stall used %v of CPU", watch, used)
	}
	a.Close()
	b.Close()
	wg.Wait()
}
