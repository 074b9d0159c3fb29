package agent_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/stdio"
	"github.com/borrownet/borrownet/agent/stdio/stdiotest"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/link"
	"github.com/borrownet/borrownet/netstack/wg"
)

// TestGoodbye: an agent that is told to end tells its client, over either way to it; one
// that its client has stopped need not.
func TestGoodbye(t *testing.T) {
	key := wg.NewPrivateKey()
	stdin := stdiotest.Start()
	for _, tt := range []struct {
		name string
		edit func(*agent.Config)
		dial func(context.Context) (io.ReadWriteCloser, error) // nil: to the port
	}{
		{"port", func(*agent.Config) {}, nil},
		{"standard_streams", func(cfg *agent.Config) { cfg.Stdio = &agent.Stdio{In: stdin.In, Out: stdin.Out} },
			func(ctx context.Context) (io.ReadWriteCloser, error) {
				s, _, err := stdio.Open(ctx, stdin.Attach())
				return s, err
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := agent.Config{ClientKey: key.Public(), Network: newWorld()}
			tt.edit(&cfg)
			a := agenttest.Start(t, cfg)
			at := a
			if tt.dial != nil {
				var err error
				if at, err = agenttest.At(a.Hello, tt.dial); err != nil {
					t.Fatal(err)
				}
			}
			c := agenttest.Connect(t, at, key, podIP)
			resp, err := c.HTTP.Get("http://agent" + wire.PathInfo)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			a.Stop()
			if err := c.Wait(patience); !errors.Is(err, link.ErrBye) {
				t.Errorf("the client's tunnel ends with %v, want a goodbye", err)
			}
			if err := a.Wait(patience); err != nil {
				t.Errorf("agent: %v", err)
			}
		})
	}
}
