package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
	"github.com/borrownet/borrownet/integration/apps/stream"
)

const (
	// maxConns bounds the connections of one port; later ones wait in the
	// kernel's backlog.
	maxConns = 1024
	// maxHeld bounds what halfClose keeps of one connection.
	maxHeld = 64 << 20
)

// tcpServer serves each connection with handle, in a goroutine that ends with
// the connection or with ctx.
func tcpServer(addr string, handle func(ctx context.Context, c *net.TCPConn) error) observe.Server {
	return func(ctx context.Context) error {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return accept(ctx, l.(*net.TCPListener), handle)
	}
}

func accept(ctx context.Context, l *net.TCPListener, handle func(context.Context, *net.TCPConn) error) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			defer c.Close()
			// What fails here is the peer's doing and for the peer to see.
			_ = handle(ctx, c)
		})
	}
}

func echo(_ context.Context, c *net.TCPConn) error {
	_, err := io.Copy(c, c)
	return err
}

func sink(_ context.Context, c *net.TCPConn) error {
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c, "%d %s\n", n, hex.EncodeToString(h.Sum(nil)))
	return err
}

func source(_ context.Context, c *net.TCPConn) error {
	line, err := bufio.NewReaderSize(io.LimitReader(c, 64), 64).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	var n int64
	var seed uint64
	if _, err := fmt.Sscanf(line, "%d %d\n", &n, &seed); err != nil {
		return fmt.Errorf("parse request %q: %w", line, err)
	}
	_, err = io.Copy(c, stream.New(n, seed))
	return err
}

func who(_ context.Context, c *net.TCPConn) error {
	_, err := fmt.Fprintln(c, plain(c.RemoteAddr().(*net.TCPAddr).AddrPort()))
	return err
}

func halfClose(_ context.Context, c *net.TCPConn) error {
	b, err := io.ReadAll(io.LimitReader(c, maxHeld))
	if err != nil {
		return err
	}
	_, err = c.Write(b)
	return err
}

func reset(_ context.Context, c *net.TCPConn) error {
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return err
	}
	return c.SetLinger(0) // the Close of accept then sends a RST
}

func stall(ctx context.Context, _ *net.TCPConn) error {
	<-ctx.Done()
	return nil
}

// plain is a without the IPv4-in-IPv6 form a dual-stack socket reports.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
