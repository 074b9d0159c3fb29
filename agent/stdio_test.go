package agent_test

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/stdio"
	"github.com/borrownet/borrownet/agent/stdio/stdiotest"
	"github.com/borrownet/borrownet/netstack/wg"
)

// TestStandardStreams: flows over the standard streams of the agent's container live on when the client's connection
// to it breaks.
func TestStandardStreams(t *testing.T) {
	c := stdiotest.Start()
	key := wg.NewPrivateKey()
	a := agenttest.Start(t, agent.Config{ClientKey: key.Public(), Network: newWorld(), Stdio: &agent.Stdio{In: c.In, Out: c.Out}})
	attached, err := agenttest.At(a.Hello, func(ctx context.Context) (io.ReadWriteCloser, error) {
		s, _, err := stdio.Open(ctx, c.Attach())
		return s, err
	})
	if err != nil {
		t.Fatal(err)
	}
	client := agenttest.Connect(t, attached, key, podIP, podIP6)
	conn := dial(t, client, podIP, at(server, 7))
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	const size, cuts = 4 << 20, 3
	sent, got := sha256.New(), sha256.New()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if _, err := io.CopyN(io.MultiWriter(conn, sent), rand.NewChaCha8([32]byte{1}), size); err != nil {
			t.Errorf("send: %v", err)
		}
	})
	for i := range cuts + 1 {
		if _, err := io.CopyN(got, conn, size/(cuts+1)); err != nil {
			t.Fatalf("receive after %d cuts: %v", i, err)
		}
		if i < cuts {
			c.Cut()
		}
	}
	wg.Wait()
	if string(sent.Sum(nil)) != string(got.Sum(nil)) {
		t.Error("what came back is not what was sent")
	}
}
