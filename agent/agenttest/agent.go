package agenttest

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/wg"
)

// Agent is a running agent.
type Agent struct {
	Hello wire.Hello
	Key   wg.PublicKey

	dial func(context.Context) (io.ReadWriteCloser, error)
	stop context.CancelFunc // what SIGTERM does; nil for an agent that somebody else runs
	done chan error         // receives Run's result once; nil as stop
}

// At returns the agent that greeted with hello and that somebody else runs; dial
// opens a carrier to it.
func At(hello wire.Hello, dial func(context.Context) (io.ReadWriteCloser, error)) (*Agent, error) {
	key, err := wg.ParsePublicKey(hello.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Agent{Hello: hello, Key: key, dial: dial}, nil
}

// Start runs an agent with cfg, whose Listener and Hello it sets, and a long Farewell, until the
// test ends. A test that ends it earlier reads the result with Wait.
func Start(tb testing.TB, cfg agent.Config) *Agent {
	tb.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	hello, out := io.Pipe()
	cfg.Listener, cfg.Hello = ln, out
	if cfg.Farewell == 0 {
		cfg.Farewell = 10 * time.Second // a busy machine is no reason to leave without a goodbye
	}
	a, err := agent.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := &Agent{stop: cancel, done: make(chan error, 1), dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", ln.Addr().String())
	}}
	go func() { running.done <- a.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := running.Wait(cfg.Farewell + 20*time.Second); err != nil {
			tb.Errorf("agent: %v", err)
		}
	})

	line, err := bufio.NewReader(hello).ReadBytes('\n')
	if err != nil {
		tb.Fatalf("read hello: %v", err)
	}
	if running.Hello, err = wire.ParseHello(line); err != nil {
		tb.Fatalf("parse hello %q: %v", line, err)
	}
	if running.Key, err = wg.ParsePublicKey(running.Hello.PublicKey); err != nil {
		tb.Fatalf("parse key: %v", err)
	}
	return running
}

// Dial opens a carrier that has proven nothing yet.
func (a *Agent) Dial(ctx context.Context) (io.ReadWriteCloser, error) { return a.dial(ctx) }

// Stop makes an agent that Start has started end.
func (a *Agent) Stop() { a.stop() }

// Wait returns Run's result of an agent that Start has started, or an error when the agent still runs after so
// long. It may be called again.
func (a *Agent) Wait(limit time.Duration) error {
	select {
	case err := <-a.done:
		a.done <- err
		return err
	case <-time.After(limit):
		return context.DeadlineExceeded
	}
}
