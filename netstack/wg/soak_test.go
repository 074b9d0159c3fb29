package wg

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/link/linktest"
)

// The soak: rounds of flows that begin and end while carriers are killed.
const (
	soakRounds = 20
	soakRound  = time.Minute // with BORROWNET_SOAK
	soakKills  = 10          // in each round, 200 in all; 2 without BORROWNET_SOAK

	soakUDP    = 5000           // the first port of UDP flows
	soakGrowth = 16 << 20       // bytes by which the process may have grown in the end
	soakSlack  = soakRounds / 2 // goroutines and descriptors likewise: one for each round would be a leak
)

// footprint is what a process holds while it rests.
type footprint struct {
	goroutines, files int
	heap, resident    int64
}

// TestSoakTunnel is twenty minutes of 50 mixed flows (bulk, calls, idle ones, UDP) whose carriers are killed 200 times, with a
// report of goroutines, descriptors and memory after each round; a few seconds without BORROWNET_SOAK.
func TestSoakTunnel(t *testing.T) {
	leaktest.Check(t)
	rounds, kills, pause := 2, 2, 50*time.Millisecond
	if os.Getenv("BORROWNET_SOAK") != "" {
		rounds, kills, pause = soakRounds, soakKills, soakRound/soakKills
	}
	tn := newTunnelled(t, [fairqueue.Lanes]error{})
	tn.serve(t, sumPort, sum)
	tn.serve(t, echoPort, echo)
	var first, last footprint
	for round := range rounds {
		tn.soak(t, kills, pause)
		last = tn.rest(t, first)
		if round == 0 {
			first = last // what is kept for good is there now
		}
		t.Logf("round %2d: %3d goroutines, %3d descriptors, heap %5.1f MiB, resident %5.1f MiB", round, last.goroutines, last.files, mib(last.heap), mib(last.resident))
	}
	if rounds < soakRounds {
		return // two rounds say nothing about growth
	}
	for what, grown := range map[string]int64{"heap": last.heap - first.heap, "resident set": last.resident - first.resident} {
		t.Logf("%s: %+.1f MiB an hour", what, mib(grown)*float64(time.Hour)/float64((soakRounds-1)*soakRound))
		if grown > soakGrowth && !raced { // the race detector keeps books of its own
			t.Errorf("the %s has grown by %.1f MiB", what, mib(grown))
		}
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// soak runs 50 flows while carriers of both lanes are killed.
func (tn *tunnelled) soak(t *testing.T, kills int, pause time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var flows sync.WaitGroup
	var calls atomic.Int64
	run := func(what string, flow func() error) {
		flows.Go(func() {
			if err := flow(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	for i := range 25 {
		run("call", func() error { _, err := tn.calls(ctx, 1+i*100, &calls); return err })
	}
	for i := range 10 {
		run("upload", func() error {
			for n := uint64(0); ctx.Err() == nil; n++ {
				if err := tn.upload(t.Context(), 1<<20+i*1000, n); err != nil {
					return err
				}
				time.Sleep(pause / 10) // else there is nothing but uploads
			}
			return nil
		})
	}
	for range 10 {
		run("idle flow", func() error { return tn.idle(ctx) })
	}
	for i := range uint16(5) {
		run("UDP flow", func() error { return tn.datagrams(ctx, soakUDP+2*i) })
	}
	for range kills {
		before := calls.Load()
		linktest.Within(t, 60*time.Second, "getting over a lost carrier", func() {
			for calls.Load() < before+100 {
				time.Sleep(time.Millisecond)
			}
		})
		time.Sleep(pause)
		tn.kill(fairqueue.Lane(rand.IntN(int(fairqueue.Lanes))))
	}
	stop()
	linktest.Within(t, 60*time.Second, "the end of all flows", flows.Wait)
}

// idle is a conn that is used when it was idle for all of the round.
func (tn *tunnelled) idle(ctx context.Context) error {
	dialing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	c, err := tn.dial(dialing, echoPort)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2*soakRound + time.Minute)); err != nil {
		return err
	}
	for range 2 {
		if err := ask(c, []byte("are you there")); err != nil {
			return err
		}
		<-ctx.Done()
	}
	return nil
}

// datagrams sends datagrams to itself by way of the agent, until ctx ends, and counts on all of them: the link loses none.
func (tn *tunnelled) datagrams(ctx context.Context, port uint16) error {
	here, there := netip.AddrPortFrom(near, port), netip.AddrPortFrom(far, port+1)
	client, err := tn.clientStack.DialUDP(here, there)
	if err != nil {
		return err
	}
	defer client.Close()
	agent, err := tn.agentStack.DialUDP(there, here)
	if err != nil {
		return err
	}
	var echoing sync.WaitGroup
	defer echoing.Wait()
	defer agent.Close()
	echoing.Go(func() {
		b := make([]byte, 2000)
		for {
			n, err := agent.Read(b)
			if err != nil {
				return
			}
			_, _ = agent.Write(b[:n])
		}
	})
	for n := 0; ctx.Err() == nil; n++ {
		if err := client.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		if err := ask(client, fmt.Appendf(nil, "datagram %d", n)); err != nil {
			return err
		}
	}
	return nil
}

// ask sends text to an echo and compares what comes back.
func ask(c interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
}, text []byte) error {
	if _, err := c.Write(text); err != nil {
		return err
	}
	got := make([]byte, 0, len(text))
	for len(got) < len(text) {
		n, err := c.Read(got[len(got):cap(got)])
		if err != nil {
			return err
		}
		got = got[:len(got)+n]
	}
	if !bytes.Equal(got, text) {
		return fmt.Errorf("%q came back as %q", text, got)
	}
	return nil
}

// rest waits until no flow holds anything any more, and returns what is held then. It fails if that is much more than before.
func (tn *tunnelled) rest(t *testing.T, before footprint) footprint {
	t.Helper()
	var f footprint
	end := time.Now().Add(time.Minute)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for calm := 0; calm < 20; <-look.C { // 0.2 s: a carrier that was killed last is being replaced
		was := f
		f.goroutines, f.files = runtime.NumGoroutine(), descriptors(t)
		enough := before == footprint{} || f.goroutines <= before.goroutines+soakSlack && f.files <= before.files+soakSlack
		if calm++; f.goroutines != was.goroutines || f.files != was.files || !enough {
			calm = 0
		}
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d descriptors; after the first round %d and %d\n%s", f.goroutines, f.files, before.goroutines, before.files, buf[:runtime.Stack(buf, true)])
		}
	}
	runtime.GC() // pooled buffers survive the first collection
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f.heap, f.resident = int64(m.HeapAlloc), resident(t)
	return f
}

// descriptors returns how many files the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	return len(list)
}

// resident returns the bytes that the process has in memory.
func resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
