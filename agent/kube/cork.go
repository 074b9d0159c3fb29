package kube

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptrace"
	"sync"
)

// corkConn is a connection below TLS. TLS writes each record of 16 KiB by itself, and each such write wakes who reads at the
// other end; between cork and uncork they are put together.
type corkConn struct {
	net.Conn

	mu     sync.Mutex // held across a write
	corked bool
	held   []byte
}

// corkDialer returns the dial function of connections that can be corked.
func corkDialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := newDialer().DialContext
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &corkConn{Conn: conn}, nil
	}
}

// Write implements net.Conn.
func (c *corkConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *corkConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// uncork writes what is held.
func (c *corkConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	return err
}

// corkStream is the stream of an upgraded request, and the connection below it.
type corkStream struct {
	io.ReadWriteCloser
	under *corkConn
}

// Close ends the connection first: TLS would say goodbye on it, behind an uncork that nobody reads.
func (s *corkStream) Close() error {
	s.under.Conn.Close()
	return s.ReadWriteCloser.Close()
}

// traceCork returns a context for a request, and a function that returns the connection that it got; nil if that is none of
// corkDialer's, under TLS.
func traceCork(ctx context.Context) (context.Context, func() *corkConn) {
	var under *corkConn
	got := func(info httptrace.GotConnInfo) {
		if t, ok := info.Conn.(*tls.Conn); ok {
			under, _ = t.NetConn().(*corkConn)
		}
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: got}), func() *corkConn { return under }
}
