package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/flow"
)

// borrowDirect is a session with the pod api that asks for a direct path.
func borrowDirect(t *testing.T, w *World, open *session.Opener) *session.Session {
	t.Helper()
	req := session.Request{
		Ref: "api", Hook: hook.Relay, Direct: true, IdleTTL: time.Minute, HardTTL: time.Hour, Kube: kube.Flags{Context: Context},
	}
	opening, err := open.Open(t.Context(), req, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	s, err := opening.Start(t.Context(), "api", session.Observer{Step: func(string) {}, State: func(st session.State, problem *fault.Error) {
		if problem != nil {
			t.Logf("%s: %v", st, problem)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close session: %v", err)
		}
	})
	return s
}

// dialFrom opens a flow from the session's pod, as a program does.
func dialFrom(t *testing.T, s *session.Session, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	way, err := s.Way(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	board, err := switchboard.Dial(way.Socket)
	if err != nil {
		t.Fatal(err)
	}
	f, err := board.Open(t.Context(), flow.TCP, to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ours, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	file, err := theirs.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Attach(int(file.Fd())), file.Close(), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	return ours.(*net.TCPConn)
}

// sums uploads until ctx ends, and compares what the server says that it got.
func sums(ctx context.Context, c *net.TCPConn, moved *atomic.Int64) error {
	defer c.Close()
	random := rand.NewChaCha8([32]byte{1})
	sum, size, buf := sha256.New(), int64(0), make([]byte, 64<<10)
	for ctx.Err() == nil {
		_, _ = random.Read(buf) // never fails
		sum.Write(buf)
		size += int64(len(buf))
		if _, err := c.Write(buf); err != nil {
			return fmt.Errorf("upload: %w", err)
		}
		moved.Add(1)
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	var got Digest
	if err := json.NewDecoder(c).Decode(&got); err != nil {
		return fmt.Errorf("upload's sum: %w", err)
	}
	if got.Bytes != size || got.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
		return fmt.Errorf("%d bytes were sent, %+v arrived", size, got)
	}
	return nil
}

// calls sends and gets the same back until ctx ends.
func calls(ctx context.Context, c *net.TCPConn, size int, moved *atomic.Int64) error {
	defer c.Close()
	random := rand.NewChaCha8([32]byte{2})
	sent, got := make([]byte, size), make([]byte, size)
	for ctx.Err() == nil {
		_, _ = random.Read(sent) // never fails
		if _, err := c.Write(sent); err != nil {
			return fmt.Errorf("call: %w", err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		if !bytes.Equal(got, sent) {
			return errors.New("an answer differs")
		}
		moved.Add(1)
	}
	return nil
}

// attachOnly is a cluster that refuses port-forward: what is left carries calls alone.
type attachOnly struct{ *Client }

func (c attachOnly) Dial(ctx context.Context, t *kube.Target, a *kube.Agent, use kube.Use) (kube.Carrier, error) {
	if use == kube.ForBulk {
		return nil, fmt.Errorf("no second carrier: %w", kube.ErrForwardRefused)
	}
	return c.Client.Dial(ctx, t, a, use)
}

// TestDirect lets a session find the pod's UDP port, lose it and find it again, under flows that go on all the time: none is
// lost, and no byte of them is wrong. Where port-forward is refused bulk has a lane there alone.
func TestDirect(t *testing.T) {
	for _, tt := range []struct {
		name    string
		connect func(*Client) session.Cluster
		bulk    string // carrier without a path
	}{
		{"port-forward", func(c *Client) session.Cluster { return c }, ProtocolUnix},
		{"attach", func(c *Client) session.Cluster { return attachOnly{c} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { testDirect(t, tt.connect, tt.bulk) })
	}
}

func testDirect(t *testing.T, connect func(*Client) session.Cluster, otherBulk string) {
	w, dir := serve(t)
	w.Wall(true)
	s := borrowDirect(t, w, &session.Opener{Dir: dir, Keys: session.NewKeys(dir), Connect: func(f kube.Flags) (session.Cluster, error) {
		return connect(NewClient(dir, f)), nil
	}})
	const long = time.Minute
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var flows sync.WaitGroup
	var moved [4]atomic.Int64
	run := func(i int, port uint16, do func(*net.TCPConn) error) {
		c := dialFrom(t, s, netip.AddrPortFrom(ledgerAddr, port))
		flows.Go(func() {
			if err := do(c); err != nil {
				t.Errorf("flow %d: %v", i, err)
			}
		})
	}
	run(0, SinkPort, func(c *net.TCPConn) error { return sums(ctx, c, &moved[0]) })
	run(1, EchoPort, func(c *net.TCPConn) error { return calls(ctx, c, 100, &moved[1]) })
	run(2, EchoPort, func(c *net.TCPConn) error { return calls(ctx, c, 64<<10, &moved[2]) })
	run(3, EchoPort, func(c *net.TCPConn) error { return calls(ctx, c, 1000, &moved[3]) })

	// carried waits until what the status says is right and every flow has gone on since.
	carried := func(what string, is func(session.Status) bool) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var st session.Status
		for end := time.Now().Add(long); !is(st); <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("%s: not in %v: %s and %s, %s", what, long, st.Carrier, st.BulkCarrier, st.NotDirect)
			}
			st = s.Status(t.Context(), false)
		}
		for i := range moved {
			for was, end := moved[i].Load(), time.Now().Add(long); moved[i].Load() < was+2; <-tick.C {
				if time.Now().After(end) {
					t.Fatalf("%s: flow %d stands still", what, i)
				}
			}
		}
	}
	direct := func(st session.Status) bool {
		return st.Carrier == session.ProtocolDirect && st.BulkCarrier == session.ProtocolDirect && st.NotDirect == ""
	}
	carried("no path", func(st session.Status) bool {
		return st.Carrier == ProtocolUnix && st.BulkCarrier == otherBulk && strings.Contains(st.NotDirect, "no answer")
	})
	w.Wall(false)
	carried("upgrade", direct)
	w.Wall(true)
	carried("fallback", func(st session.Status) bool {
		return st.Carrier == ProtocolUnix && st.BulkCarrier == otherBulk && strings.Contains(st.NotDirect, "path was lost")
	})
	w.Wall(false)
	carried("upgrade again", direct)
	w.Cut() // the API server is away: nothing of the session needs it
	defer w.Mend()
	carried("without the API server", direct)
	stop()
	flows.Wait()
	if err := s.StopAgent(t.Context()); err != nil {
		t.Errorf("stop agent: %v", err)
	}
}
