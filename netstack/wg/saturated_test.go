package wg

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/link/linktest"
)

const (
	readPort    = 9  // sends without an end, and reads
	stalledPort = 10 // sends without an end, and never reads

	saturatedFlows = 8 // of each kind
)

// saturatedFor is how long TestSaturatedBothWays takes: a minute under the race detector, ten with BORROWNET_SOAK.
func saturatedFor() time.Duration {
	switch {
	case os.Getenv("BORROWNET_SOAK") != "":
		return 10 * time.Minute
	case raced:
		return time.Minute
	}
	return 5 * time.Second
}

// pattern is what both ends send, again and again.
var pattern = func() []byte {
	b := make([]byte, 65521)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}()

// sendPattern sends until c ends.
func sendPattern(c *netstack.TCPConn) {
	for {
		if _, err := c.Write(pattern); err != nil {
			return
		}
	}
}

// readPattern counts what comes, until c ends. It returns an error if that is not what was sent.
func readPattern(c *netstack.TCPConn, moved *atomic.Int64) error {
	got := make([]byte, len(pattern))
	for {
		if _, err := io.ReadFull(c, got); err != nil {
			return nil
		}
		if !bytes.Equal(got, pattern) {
			return errors.New("other bytes than were sent")
		}
		moved.Add(1)
	}
}

// TestSaturatedBothWays sends as much as there is room for on many flows, both ways, while nobody reads half of them:
// the others go on all the time, memory stays bounded, and Close finds its way through.
func TestSaturatedBothWays(t *testing.T) {
	leaktest.Check(t)
	tn := newTunnelled(t, [fairqueue.Lanes]error{})
	var moved [2 * saturatedFlows]atomic.Int64 // each way of each flow that is read
	var accepted atomic.Int64
	tn.serve(t, readPort, func(c *netstack.TCPConn) {
		var sender sync.WaitGroup
		sender.Go(func() { sendPattern(c) })
		if err := readPattern(c, &moved[saturatedFlows+accepted.Add(1)-1]); err != nil {
			t.Errorf("at the agent: %v", err)
		}
		c.Close()
		sender.Wait()
	})
	tn.serve(t, stalledPort, sendPattern)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var flows sync.WaitGroup
	for i := range saturatedFlows {
		for _, port := range []uint16{readPort, stalledPort} {
			c, err := tn.dial(ctx, port)
			if err != nil {
				t.Fatal(err)
			}
			flows.Go(func() { sendPattern(c) })
			if port == readPort {
				flows.Go(func() {
					if err := readPattern(c, &moved[i]); err != nil {
						t.Errorf("at the client: %v", err)
					}
				})
			}
		}
	}

	const looks = 10
	var settled uint64
	for look := range looks {
		time.Sleep(saturatedFor() / looks)
		linktest.Within(t, time.Minute, "every flow that is read moving on", func() {
			for i := range moved {
				for was := moved[i].Load(); moved[i].Load() == was; {
					time.Sleep(time.Millisecond)
				}
			}
		})
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		switch {
		case look <= looks/2:
			settled = max(settled, m.HeapAlloc)
		case m.HeapAlloc > settled+settled/2+64<<20:
			t.Errorf("%d MiB in use, at most %d in the first half", m.HeapAlloc>>20, settled>>20)
		}
	}
	linktest.Within(t, patience, "Close", func() {
		tn.client.Close()
		tn.agent.Close()
	})
	tn.clientStack.Close()
	tn.agentStack.Close()
	linktest.Within(t, patience, "the end of all flows", flows.Wait)
	total := int64(0)
	for i := range moved {
		total += moved[i].Load()
	}
	t.Logf("%d MiB moved in %v, %d MiB in use", total*int64(len(pattern))>>20, saturatedFor(), settled>>20)
}
