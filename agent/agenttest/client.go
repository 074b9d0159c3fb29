package agenttest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
	"github.com/borrownet/borrownet/netstack/wg"
)

// Client is a client of an agent whose programs are a network stack: it dials
// from the pod's addresses as a program of the session does.
type Client struct {
	Stack  *netstack.Stack
	Tunnel *wg.Tunnel
	HTTP   *http.Client // to the control API

	done chan error // receives the tunnel's end once
}

// Connect opens a session with the agent until the test ends. addrs are the
// session's addresses.
func Connect(tb testing.TB, a *Agent, private wg.PrivateKey, addrs ...netip.Addr) *Client {
	tb.Helper()
	id := link.Identity{Private: private, Peer: a.Key}
	rand.Read(id.Session[:])
	dial := func(ctx context.Context, lane fairqueue.Lane) (io.ReadWriteCloser, error) {
		conn, err := a.Dial(ctx)
		if err != nil {
			return nil, err
		}
		id := id
		if lane == fairqueue.Bulk {
			id.Role = link.RoleBulk
		}
		if err := link.Prove(ctx, conn, id); err != nil {
			conn.Close()
			return nil, fmt.Errorf("prove identity: %w", err)
		}
		return conn, nil
	}
	c := &Client{done: make(chan error, 1)}
	var err error
	c.Stack, err = netstack.New(netstack.Config{
		Name:  "client",
		MTU:   wire.MTU,
		Addrs: append([]netip.Addr{wire.ClientAddr}, addrs...),
		IPv6:  true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	c.Tunnel, err = wg.NewTunnel(wg.TunnelConfig{
		Private: private,
		Peer:    a.Key,
		MTU:     wire.MTU,
		Packets: packets{c.Stack},
		Dial:    dial,
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { c.done <- c.Tunnel.Run(ctx) }()
	c.HTTP = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.Stack.DialTCP(ctx, netip.AddrPortFrom(wire.ClientAddr, 0), netip.AddrPortFrom(wire.AgentAddr, wire.ControlPort))
		},
	}}
	tb.Cleanup(func() {
		cancel()
		c.Tunnel.Close()
		c.Stack.Close()
		<-c.done
	})
	return c
}

// Wait returns why the tunnel has ended, or an error when it has not after so long. It may
// be called again.
func (c *Client) Wait(limit time.Duration) error {
	select {
	case err := <-c.done:
		c.done <- err
		return err
	case <-time.After(limit):
		return context.DeadlineExceeded
	}
}

// packets joins a stack to a tunnel.
type packets struct{ *netstack.Stack }

func (p packets) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		p.Deliver(b[offset:])
	}
	return len(bufs), nil
}

func (packets) BatchSize() int { return 16 }
