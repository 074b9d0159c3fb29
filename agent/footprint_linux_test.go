//go:build !race

// The race detector needs memory of its own.

package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/relay"
	"github.com/borrownet/borrownet/netstack/wg"
)

// alone makes the test binary an agent of its own, so that its memory can be
// told from the test's.
const alone = "BORROWNET_TEST_AGENT"

func TestMain(m *testing.M) {
	if key := os.Getenv(alone); key != "" {
		if err := serveAlone(key); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// mirrored is the kernel's network, in which every host is this one.
type mirrored struct{ agent.Kernel }

func (mirrored) Addrs() ([]netip.Addr, error) { return []netip.Addr{podIP}, nil }

func (m mirrored) DialTCP(ctx context.Context, dst netip.AddrPort) (relay.Conn, error) {
	return m.Kernel.DialTCP(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dst.Port()))
}

func serveAlone(key string) error {
	peer, err := wg.ParsePublicKey(key)
	if err != nil {
		return err
	}
	agent.LimitMemory(agent.DefaultMemory)
	ln, err := agent.Listen()
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Config{ClientKey: peer, Network: mirrored{}, Listener: ln, Hello: os.Stdout, Memory: agent.DefaultMemory})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return a.Run(ctx)
}

// process is an agent in a process of its own.
type process struct {
	*agenttest.Agent
	pid int
}

func startAlone(t *testing.T, key wg.PublicKey) process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), alone+"="+key.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	hello, err := wire.ParseHello(line)
	if err != nil {
		t.Fatal(err)
	}
	a, err := agenttest.At(hello, func(ctx context.Context) (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(hello.Port))))
	})
	if err != nil {
		t.Fatal(err)
	}
	return process{a, cmd.Process.Pid}
}

// rss returns the process's resident memory, in MiB.
func (p process) rss(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// crowd is how many flows the budget of an agent has to bear.
const crowd = 1000

// TestFootprint has a crowd of flows through an agent of its own process: at
// rest, with programs that do not read, and with servers that do not. The
// agent's memory stays within its budget, and what it refuses for that it counts.
func TestFootprint(t *testing.T) {
	// The test binary has some more code than an agent, and a busy machine collects
	// its garbage late.
	const budget = agent.DefaultMemory/(1<<20) + 10
	for _, tt := range []struct {
		name    string
		server  func(net.Conn)
		program func(net.Conn)
		served  int // at least
	}{
		{"rest", echoServer, func(c net.Conn) { c.Read(make([]byte, 1)) }, crowd},
		{"programs_do_not_read", pour, func(net.Conn) {}, crowd / 2},
		{"servers_do_not_read", hold, func(c net.Conn) { go pour(c) }, crowd / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := wg.NewPrivateKey()
			p := startAlone(t, key.Public())
			c := agenttest.Connect(t, p.Agent, key, podIP)
			idle := p.rss(t)
			port := listen(t, tt.server)
			var refused atomic.Uint64
			var all struct {
				sync.Mutex
				conns []net.Conn
			}
			var dials sync.WaitGroup
			slots := make(chan struct{}, 64)
			for range crowd {
				slots <- struct{}{}
				dials.Go(func() {
					defer func() { <-slots }()
					conn, err := c.Stack.DialTCP(t.Context(), at(podIP, 0), at(server, port))
					switch {
					case errors.Is(err, syscall.ECONNREFUSED):
						refused.Add(1)
					case err != nil:
						t.Error(err)
					default:
						conn.Write([]byte("x"))
						tt.program(conn)
						all.Lock()
						all.conns = append(all.conns, conn)
						all.Unlock()
					}
				})
			}
			dials.Wait()
			most := p.settle(t)
			st := stats(t, c)
			t.Logf("idle %.1f MiB, with %d flows at most %.1f, %d refused", idle, st.TCPFlows, most, refused.Load())
			if most > budget {
				t.Errorf("resident memory is %.1f MiB, the budget %d", most, budget)
			}
			// A SYN that is sent again is refused again.
			if got := st.Dropped["no memory for another flow"]; got < refused.Load() || (got > 0) != (refused.Load() > 0) {
				t.Errorf("counted %d flows as refused, programs saw %d", got, refused.Load())
			}
			defer func() {
				// What the crowd has left behind keeps nobody out.
				for _, conn := range all.conns {
					conn.(interface{ Reset() error }).Reset() // what it has written is worth nothing
				}
				waitUntil(t, "a flow after the crowd", func() bool {
					conn, err := c.Stack.DialTCP(t.Context(), at(podIP, 0), at(server, port))
					if err == nil {
						conn.Close()
					}
					return err == nil
				})
			}()
			served := crowd - int(refused.Load())
			if served < tt.served {
				t.Errorf("%d flows were not refused, want at least %d", served, tt.served)
			}
			// One that was refused, and whose SYN was sent again before that, ends when its program says so.
			waitUntil(t, "as many open flows as were not refused", func() bool { return stats(t, c).TCPFlows == int64(served) })
		})
	}
}

// settle returns the most that was resident until it has not grown for a while.
func (p process) settle(t *testing.T) float64 {
	most := p.rss(t)
	for quiet := 0; quiet < 10; quiet++ {
		time.Sleep(50 * time.Millisecond) // the pace of looking; nothing is waited for
		if now := p.rss(t); now > most {
			most, quiet = now, 0
		}
	}
	return most
}

// pour writes until the conn ends.
func pour(c net.Conn) {
	for b := make([]byte, 64<<10); ; {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// hold reads one byte and then nothing until the test binary ends.
func hold(c net.Conn) {
	c.Read(make([]byte, 1))
	held.Lock()
	defer held.Unlock()
	held.conns = append(held.conns, c)
}

// held keeps conns from being collected, which would close them.
var held struct {
	sync.Mutex
	conns []net.Conn
}

// listen serves on a port of this host until the test ends.
func listen(t *testing.T, serve func(net.Conn)) (port uint16) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}
