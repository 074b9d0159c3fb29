package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

const (
	killFlows = 50
	// stallFrom is how long an exchange takes at least to be told of.
	stallFrom = 50 * time.Millisecond
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

// kinds are what the flows do, in turn: what they run, and the number of their server among survive's arguments.
var kinds = []struct {
	run    func(w *witness, flow int, addr string) error
	server int
	idle   bool // not seen to stand still
}{
	{run: (*witness).ask, server: 0},
	{run: (*witness).send, server: 1},
	{run: (*witness).take, server: 2},
	{run: (*witness).datagrams, server: 0},
	{run: (*witness).rest, server: 0, idle: true},
}

// survive runs flows of all kinds to the echo, sink and source servers at args[0:3] until its input ends, and prints a
// Survival.
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
	w := witness{over: make(chan struct{}), patience: time.Minute, found: Survival{Flows: killFlows}}
	go func() { // ends with the input
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(w.over)
	}()
	var flows sync.WaitGroup
	for i := range killFlows {
		flows.Go(func() {
			kind := kinds[i%len(kinds)]
			if err := kind.run(&w, i, args[kind.server]); err != nil {
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
	over     chan struct{} // closed when the flows are to end
	patience time.Duration // how long a flow may stand still before it counts as lost

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
	if err := conn.SetDeadline(begin.Add(w.patience)); err != nil {
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

// datagrams asks over UDP, which promises nothing; the way that is measured loses none.
func (w *witness) datagrams(flow int, addr string) error {
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for n := 0; !w.ended(); n++ {
		sent, got := fmt.Appendf(nil, "datagram %d of flow %d", n, flow), make([]byte, 2000)
		err := w.step(flow, conn, func() error {
			if _, err := conn.Write(sent); err != nil {
				return err
			}
			size, err := conn.Read(got)
			got = got[:size]
			return err
		})
		if err != nil {
			return fmt.Errorf("%q: %w", sent, err)
		}
		if !bytes.Equal(got, sent) {
			w.wrong(flow, fmt.Sprintf("%q is answered with %q", sent, got))
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// rest asks once, says nothing until the end, and asks again.
func (w *witness) rest(flow int, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for n := range 2 {
		sent := fmt.Appendf(nil, "question %d of flow %d", n, flow)
		got := bytes.Clone(sent)
		if err := w.step(flow, conn, func() error { return exchange(conn, got) }); err != nil {
			return err
		}
		if !bytes.Equal(got, sent) {
			w.wrong(flow, fmt.Sprintf("%q is answered with %q", sent, got))
			return nil
		}
		<-w.over
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
	if err := conn.SetDeadline(time.Now().Add(w.patience)); err != nil {
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
