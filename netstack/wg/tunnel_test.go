package wg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/link/linktest"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

var (
	near = netip.MustParseAddr("192.0.2.1")
	far  = netip.MustParseAddr("198.51.100.1")
)

// stackPackets joins a stack to a Tunnel.
type stackPackets struct{ *netstack.Stack }

func (p stackPackets) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		p.Deliver(b[offset:])
	}
	return len(bufs), nil
}

func (stackPackets) BatchSize() int { return 16 }

// tunnelled is two stacks joined by a Tunnel.
type tunnelled struct {
	client, agent           *Tunnel
	clientStack, agentStack *netstack.Stack

	mu       sync.Mutex
	carriers [fairqueue.Lanes]io.Closer // guarded by mu
	refuse   [fairqueue.Lanes]error     // what Dial fails with; guarded by mu
}

func newTunnelled(t *testing.T, refuse [fairqueue.Lanes]error) *tunnelled {
	tn := &tunnelled{refuse: refuse}
	tn.clientStack = netstacktest.New(t, netstack.Config{Name: "client", Addrs: []netip.Addr{near}, Patient: true})
	tn.agentStack = netstacktest.New(t, netstack.Config{Name: "agent", Addrs: []netip.Addr{far}, Patient: true})
	pairs := linktest.TCPPairs(t)
	dial := func(_ context.Context, lane fairqueue.Lane) (io.ReadWriteCloser, error) {
		tn.mu.Lock()
		defer tn.mu.Unlock()
		if err := tn.refuse[lane]; err != nil {
			return nil, err
		}
		c, a := pairs()
		tn.carriers[lane] = c
		tn.agent.Attach(lane, a)
		return c, nil
	}
	clientKey, agentKey := NewPrivateKey(), NewPrivateKey()
	var err error
	tn.agent, err = NewTunnel(TunnelConfig{Private: agentKey, Peer: clientKey.Public(), Packets: stackPackets{tn.agentStack}})
	if err != nil {
		t.Fatal(err)
	}
	tn.client, err = NewTunnel(TunnelConfig{Private: clientKey, Peer: agentKey.Public(), Packets: stackPackets{tn.clientStack}, Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for _, end := range []*Tunnel{tn.agent, tn.client} {
		running.Go(func() {
			if err := end.Run(context.Background()); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
	}
	t.Cleanup(func() {
		tn.client.Close()
		tn.agent.Close()
		running.Wait()
	})
	return tn
}

func (tn *tunnelled) kill(lane fairqueue.Lane) {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	if c := tn.carriers[lane]; c != nil {
		c.Close()
	}
}

// serve answers connections to a port of the agent's stack.
func (tn *tunnelled) serve(t *testing.T, port uint16, answer func(*netstack.TCPConn)) {
	t.Helper()
	ln, err := tn.agentStack.ListenTCP(netip.AddrPortFrom(far, port))
	if err != nil {
		t.Fatal(err)
	}
	var answers sync.WaitGroup
	answers.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			answers.Go(func() { answer(c.(*netstack.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		tn.agentStack.Close()
		answers.Wait()
	})
}

func (tn *tunnelled) dial(ctx context.Context, port uint16) (*netstack.TCPConn, error) {
	return tn.clientStack.DialTCP(ctx, netip.AddrPortFrom(near, 0), netip.AddrPortFrom(far, port))
}

const (
	echoPort = 7
	sumPort  = 8 // answers with the SHA-256 of all that it got
)

func echo(c *netstack.TCPConn) {
	io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	c.Close()
}

func sum(c *netstack.TCPConn) {
	h := sha256.New()
	io.Copy(h, struct{ io.Reader }{c})
	c.Write(h.Sum(nil))
	c.Close()
}

// upload sends size bytes to the sum port and checks the answer.
func (tn *tunnelled) upload(ctx context.Context, size int, seed uint64) error {
	c, err := tn.dial(ctx, sumPort)
	if err != nil {
		return err
	}
	defer c.Close()
	h := sha256.New()
	var key [32]byte
	key[0] = byte(seed)
	if _, err := io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8(key), int64(size)); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, h.Sum(nil)) {
		err = fmt.Errorf("%d bytes arrived as others", size)
	}
	return err
}

// calls sends and gets back size bytes again and again until ctx ends, and returns the longest round trip.
func (tn *tunnelled) calls(ctx context.Context, size int, done *atomic.Int64) (slowest time.Duration, err error) {
	dialing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	c, err := tn.dial(dialing, echoPort) // also if others are done already
	if err != nil {
		return 0, err
	}
	defer c.Close()
	want, got := bytes.Repeat([]byte{byte(size)}, size), make([]byte, size)
	for ctx.Err() == nil {
		start := time.Now()
		if _, err := c.Write(want); err != nil {
			return slowest, err
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return slowest, err
		}
		if !bytes.Equal(got, want) {
			return slowest, errors.New("the echo differs")
		}
		slowest = max(slowest, time.Since(start))
		done.Add(1)
	}
	return slowest, nil
}

func TestTunnelUsesBothLanes(t *testing.T) {
	leaktest.Check(t)
	tn := newTunnelled(t, [fairqueue.Lanes]error{})
	tn.serve(t, sumPort, sum)
	var express, bulk uint64
	linktest.Within(t, 60*time.Second, "an upload", func() {
		for n := uint64(0); tn.client.Stats(fairqueue.Bulk).BytesOut < 64<<10; n++ { // it is used a moment after it is up
			if err := tn.upload(t.Context(), 1<<20, n); err != nil {
				t.Error(err)
				return
			}
		}
		express, bulk = tn.client.Stats(fairqueue.Express).BytesOut, tn.client.Stats(fairqueue.Bulk).BytesOut
		if err := tn.upload(t.Context(), 16<<20, 1); err != nil {
			t.Error(err)
		}
	})
	express, bulk = tn.client.Stats(fairqueue.Express).BytesOut-express, tn.client.Stats(fairqueue.Bulk).BytesOut-bulk
	if bulk < 12<<20 {
		t.Errorf("of an upload of 16 MiB %d bytes left by the bulk lane, %d by the other", bulk, express)
	}
}

func TestTunnelWithoutBulkLane(t *testing.T) {
	leaktest.Check(t)
	tn := newTunnelled(t, [fairqueue.Lanes]error{fairqueue.Bulk: errors.New("forbidden")})
	tn.serve(t, sumPort, sum)
	linktest.Within(t, 60*time.Second, "an upload", func() {
		if err := tn.upload(t.Context(), 16<<20, 1); err != nil {
			t.Error(err)
		}
	})
	if n := tn.client.Stats(fairqueue.Bulk).BytesOut; n != 0 {
		t.Errorf("%d bytes left by a lane without a carrier", n)
	}
}

// TestTunnelKilledCarriers kills carriers of both lanes at random under uploads and calls: no flow is lost, no byte is wrong,
// and TCP does not notice. BORROWNET_KILLS sets how many, 100 for the acceptance test.
func TestTunnelKilledCarriers(t *testing.T) {
	leaktest.Check(t)
	kills := 6
	if n, err := strconv.Atoi(os.Getenv("BORROWNET_KILLS")); err == nil {
		kills = n
	}
	tn := newTunnelled(t, [fairqueue.Lanes]error{})
	tn.serve(t, sumPort, sum)
	tn.serve(t, echoPort, echo)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var flows sync.WaitGroup
	var calls, uploads atomic.Int64
	var gap atomic.Int64 // the longest call
	for i := range 40 {
		flows.Go(func() {
			slowest, err := tn.calls(ctx, 1+i*100, &calls)
			if err != nil {
				t.Errorf("call: %v", err)
			}
			for was := gap.Load(); int64(slowest) > was && !gap.CompareAndSwap(was, int64(slowest)); was = gap.Load() {
			}
		})
	}
	for i := range 10 {
		flows.Go(func() {
			for n := uint64(0); ctx.Err() == nil; n++ {
				if err := tn.upload(t.Context(), 1<<20+i*1000, n); err != nil {
					t.Errorf("upload: %v", err)
					return
				}
				uploads.Add(1)
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range kills {
		before := calls.Load()
		linktest.Within(t, 60*time.Second, "getting over a lost carrier", func() {
			for calls.Load() < before+int64(10+rnd.IntN(200)) {
				time.Sleep(time.Millisecond)
			}
		})
		tn.kill(fairqueue.Lane(rnd.IntN(int(fairqueue.Lanes))))
	}
	stop()
	linktest.Within(t, 60*time.Second, "the end of all flows", flows.Wait)
	again := tn.clientStack.Stats().TCPTimeouts + tn.agentStack.Stats().TCPTimeouts
	t.Logf("%d kills: %d calls, the longest %v, %d uploads, %d retransmission timeouts", kills, calls.Load(), time.Duration(gap.Load()), uploads.Load(), again)
	if n := tn.client.Stats(fairqueue.Express).Redials + tn.client.Stats(fairqueue.Bulk).Redials; n == 0 {
		t.Error("nothing was redialled")
	}
}

// TestTunnelLosesBulkLane takes the bulk lane's carrier away under flows that use it both ways, lets nobody have another, and
// then does again: all go on over express meanwhile, no byte is wrong, and they move to the bulk lane again.
func TestTunnelLosesBulkLane(t *testing.T) {
	leaktest.Check(t)
	tn := newTunnelled(t, [fairqueue.Lanes]error{})
	tn.serve(t, sumPort, sum)
	tn.serve(t, echoPort, echo)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var flows sync.WaitGroup
	var done [3]atomic.Int64
	for i, size := range []int{100, 512 << 10} {
		flows.Go(func() {
			if _, err := tn.calls(ctx, size, &done[i]); err != nil {
				t.Errorf("calls of %d bytes: %v", size, err)
			}
		})
	}
	flows.Go(func() {
		for n := uint64(0); ctx.Err() == nil; n++ {
			if err := tn.upload(t.Context(), 2<<20, n); err != nil {
				t.Errorf("upload: %v", err)
				return
			}
			done[2].Add(1)
		}
	})
	refuse := func(err error) {
		tn.mu.Lock()
		defer tn.mu.Unlock()
		tn.refuse[fairqueue.Bulk] = err
	}
	goOn := func(what string) {
		t.Helper()
		for i := range done {
			was := done[i].Load()
			linktest.Within(t, 60*time.Second, what, func() {
				for done[i].Load() < was+2 {
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
	used := func(what string) {
		t.Helper()
		for _, end := range []*Tunnel{tn.client, tn.agent} {
			was := end.Stats(fairqueue.Bulk).BytesOut
			linktest.Within(t, 60*time.Second, what, func() {
				for end.Stats(fairqueue.Bulk).BytesOut < was+(2<<20) {
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
	used("flows moving to the bulk lane")
	refuse(errors.New("forbidden"))
	tn.kill(fairqueue.Bulk)
	goOn("flows leaving the bulk lane")
	if tn.client.Stats(fairqueue.Bulk).Up {
		t.Error("the bulk lane has a carrier")
	}
	refuse(nil)
	used("flows moving to the bulk lane again")
	goOn("flows after that")
	stop()
	linktest.Within(t, 60*time.Second, "the end of all flows", flows.Wait)
}
