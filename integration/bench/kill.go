package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

const (
	killFlows = 50
	killEvery = 3 * time.Second // at least; up to twice as long
	// stallFrom is how long an exchange takes at least to be told of.
	stallFrom = 50 * time.Millisecond
	// giveUp is how long a flow may stand still before it counts as lost.
	giveUp = time.Minute
)

// Survival is what became of flows whose carriers were cut.
type Survival struct {
	Flows  int      `json:"flows"`
	Lost   []string `json:"lost"`  // why, of each flow that ended early
	Wrong  []string `json:"wrong"` // likewise, of each with a byte that was not sent
	Stalls []Stall  `json:"stalls"`
}

// Stall is a time in which a flow stood still.
type Stall struct {
	Flow  int       `json:"flow"`
	Begin time.Time `json:"begin"`
	End   time.Time `json:"end"`
}

// survive runs flows to the echo, sink and source servers at args[0:3] until its input ends, and prints a Survival.
// Half of them ask and are answered, the others move data without a pause, up and down.
func survive(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("survive: want 3 arguments, have %d", len(args))
	}
	for i := range args {
		var err error
		if args[i], err = resolve(args[i]); err != nil {
			return fmt.Errorf("survive: %w", err)
		}
	}
	w := witness{over: make(chan struct{}), found: Survival{Flows: killFlows}}
	go func() { // ends with the input
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(w.over)
	}()
	var flows sync.WaitGroup
	for i := range killFlows {
		flows.Go(func() {
			run := w.ask
			addr := args[0]
			switch i % 4 {
			case 1:
				run, addr = w.send, args[1]
			case 3:
				run, addr = w.take, args[2]
			}
			if err := run(i, addr); err != nil {
				w.lost(i, err)
			}
		})
	}
	fmt.Print(pumping)
	flows.Wait()
	return json.NewEncoder(os.Stdout).Encode(w.found)
}

// witness watches flows.
type witness struct {
	over chan struct{} // closed when the flows are to end

	mu    sync.Mutex
	found Survival // guarded by mu
}

func (w *witness) ended() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

func (w *witness) lost(flow int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found.Lost = append(w.found.Lost, fmt.Sprintf("flow %d: %v", flow, err))
}

func (w *witness) wrong(flow int, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found.Wrong = append(w.found.Wrong, fmt.Sprintf("flow %d: %s", flow, what))
}

// step does one thing of a flow, and tells if it took long.
func (w *witness) step(flow int, conn net.Conn, do func() error) error {
	begin := time.Now()
	if err := conn.SetDeadline(begin.Add(giveUp)); err != nil {
		return err
	}
	err := do()
	if end := time.Now(); end.Sub(begin) >= stallFrom {
		w.mu.Lock()
		w.found.Stalls = append(w.found.Stalls, Stall{flow, begin, end})
		w.mu.Unlock()
	}
	return err
}

// ask sends and gets the same back, with pauses.
func (w *witness) ask(flow int, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	source := stream.New(1<<60, uint64(flow))
	sent, got := make([]byte, 2000), make([]byte, 2000)
	for !w.ended() {
		if _, err := io.ReadFull(source, sent); err != nil {
			return err
		}
		copy(got, sent)
		if err := w.step(flow, conn, func() error { return exchange(conn, got) }); err != nil {
			return err
		}
		if !bytes.Equal(got, sent) {
			w.wrong(flow, "an answer differs")
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// send uploads, and compares what the server says that it got.
func (w *witness) send(flow int, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	sum, source := sha256.New(), stream.New(1<<60, uint64(flow))
	size, buf := 0, make([]byte, 64<<10)
	for !w.ended() {
		if _, err := io.ReadFull(source, buf); err != nil {
			return err
		}
		sum.Write(buf)
		size += len(buf)
		if err := w.step(flow, conn, func() error { _, err := conn.Write(buf); return err }); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond) // 1.3 MB/s: twelve of them leave the machine time for the others
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(giveUp)); err != nil {
		return err
	}
	said, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%d %s", size, hex.EncodeToString(sum.Sum(nil))); strings.TrimSpace(string(said)) != want {
		w.wrong(flow, fmt.Sprintf("the server got %q, sent was %q", said, want))
	}
	return nil
}

// take downloads, and compares each byte.
func (w *witness) take(flow int, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%d %d\n", int64(1)<<40, flow); err != nil {
		return err
	}
	source := stream.New(1<<40, uint64(flow))
	want, got := make([]byte, 64<<10), make([]byte, 64<<10)
	for !w.ended() {
		if err := w.step(flow, conn, func() error { _, err := io.ReadFull(conn, got); return err }); err != nil {
			return err
		}
		if _, err := io.ReadFull(source, want); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			w.wrong(flow, "a download differs")
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// collectKills cuts every connection to the API server again and again, at random times, under flows of all kinds.
func (s samples) collectKills(o options) error {
	p, env, stop, err := openPath(0)
	if err != nil {
		return err
	}
	defer stop()
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := outputIn(env, []string{"borrownet", "up", "-d", "-n", "shop", "--pod", "api"}); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("borrownet", "run", "--", self, "survive", "ledger:"+ports[0], "ledger:"+ports[1], "ledger:"+ports[2])
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Process.Kill()
	if _, err := io.ReadFull(out, make([]byte, len(pumping))); err != nil {
		return fmt.Errorf("flows do not begin: %w", err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	pause := func() { time.Sleep(killEvery + time.Duration(random.Int64N(int64(killEvery)))) }
	pause()
	var cuts []time.Time
	for range o.kills {
		cuts = append(cuts, time.Now())
		p.cut()
		pause()
	}
	input.Close()
	var found Survival
	if err := json.NewDecoder(out).Decode(&found); err != nil {
		return fmt.Errorf("what became of the flows: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	for _, text := range append(found.Lost, found.Wrong...) {
		fmt.Fprintln(os.Stderr, "kill:", text)
	}
	s.add("link.carrier-kill.flows-lost", "borrownet", float64(len(found.Lost)))
	s.add("link.carrier-kill.flows-wrong", "borrownet", float64(len(found.Wrong)))
	gaps := found.gaps(cuts)
	s.add("link.carrier-kill.gap.p50", "borrownet", gaps[len(gaps)/2])
	s.add("link.carrier-kill.gap.p99", "borrownet", gaps[len(gaps)*99/100])
	return nil
}

// gaps returns, sorted and in seconds, how long each flow stood still after each cut.
func (f Survival) gaps(cuts []time.Time) []float64 {
	var gaps []float64
	for i, cut := range cuts {
		longest := make([]float64, f.Flows)
		for _, s := range f.Stalls {
			later := i+1 < len(cuts) && !s.Begin.Before(cuts[i+1])
			if !later && s.End.After(cut) {
				longest[s.Flow] = max(longest[s.Flow], s.End.Sub(maxTime(s.Begin, cut)).Seconds())
			}
		}
		gaps = append(gaps, longest...)
	}
	slices.Sort(gaps)
	return gaps
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
