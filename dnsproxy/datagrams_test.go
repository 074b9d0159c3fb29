package dnsproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

// byDatagrams makes the proxies of all tests use Config.Datagrams.
const byDatagrams = "DNSPROXY_TEST_DATAGRAMS"

// newProxy is New, and in the second run with Datagrams in the place of Dial.
func newProxy(cfg Config) *Proxy {
	if os.Getenv(byDatagrams) != "" {
		cfg.Datagrams = datagramsBy(cfg.Dial)
	}
	return New(cfg)
}

// datagramsBy returns datagrams over the conns of dial, which takes no time.
func datagramsBy(dial func(context.Context, string, netip.AddrPort) (net.Conn, error)) func(netip.AddrPort, func([]byte, error)) (io.WriteCloser, error) {
	return func(addr netip.AddrPort, receive func([]byte, error)) (io.WriteCloser, error) {
		c, err := dial(context.Background(), "udp", addr)
		if err != nil {
			return nil, err
		}
		go func() { // ends with c
			buf := make([]byte, maxUDPSize)
			for {
				n, err := c.Read(buf)
				if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
					return
				}
				receive(buf[:n], err)
				if err != nil {
					return
				}
			}
		}()
		return c, nil
	}
}

// answerTo is Proxy.Answer, and in the second run Serve for what came over UDP.
func answerTo(ctx context.Context, p *Proxy, query []byte, udp bool) []byte {
	if !udp || os.Getenv(byDatagrams) == "" {
		return p.Answer(ctx, query, udp)
	}
	replies := make(chan []byte, 1)
	if !p.Serve(query, func(reply []byte) { replies <- reply }) {
		return nil
	}
	select {
	case reply := <-replies:
		return reply
	case <-ctx.Done():
		return nil
	}
}

// TestDatagrams runs all tests once more, with nameservers that are reached by Config.Datagrams and queries that are answered
// by Serve.
func TestDatagrams(t *testing.T) {
	if os.Getenv(byDatagrams) != "" {
		t.Skip("this is that run")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^Test")
	cmd.Env = append(os.Environ(), byDatagrams+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
