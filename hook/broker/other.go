//go:build !linux

package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
)

// The preload library is for Linux. Elsewhere nobody asks.

// Client asks a broker as the library does.
type Client struct{}

// NewClient returns an error.
func NewClient(string) (*Client, error) { return nil, errors.ErrUnsupported }

// Resolve returns an error.
func (*Client) Resolve(context.Context, []byte) ([]byte, error) { return nil, errors.ErrUnsupported }

// Dial returns an error.
func (*Client) Dial(context.Context, string, netip.AddrPort) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// A Handler does what the library asks for.
type Handler interface {
	OpenTCP(ctx context.Context, dst netip.AddrPort) (carry func(ctx context.Context, c *net.TCPConn), err error)
	OpenUDP(ctx context.Context, dst netip.AddrPort) (carry func(ctx context.Context, c *net.UDPConn), err error)
	Publish(ctx context.Context, at netip.AddrPort, v6only bool) error
	Resolve(ctx context.Context, query []byte) []byte
}

// Server serves the programs of one session.
type Server struct {
	Listener net.Listener
	Handler  Handler
	Logger   *slog.Logger
}

// Run returns an error.
func (s *Server) Run(context.Context) error {
	return errors.Join(errors.ErrUnsupported, s.Listener.Close())
}
