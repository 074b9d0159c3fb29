package netns

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
)

// Config says what the session namespace looks like. The zero value of a field
// means its default.
type Config struct {
	// Exe is the argument vector that ends in Main, for example
	// [self, "__netns"]. It is required.
	Exe []string
	// Socket is the path of the unix socket on which the helper makes sockets
	// for programs. Its directory must exist. It is required.
	Socket string
	// Addrs are the session's own addresses, at most one per family. At least
	// one is required.
	Addrs []netip.Addr
	// MTU of the packet device, default 65440.
	MTU int
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// Helper is the daemon's end of a session namespace.
type Helper struct{}

// Start spawns the helper and waits until the namespace is ready. ctx bounds the
// start only; the helper lives until Close or until this process ends.
func Start(ctx context.Context, cfg Config) (*Helper, error) { return nil, errors.ErrUnsupported }

// Read waits for packets that leave the namespace and puts one into each of
// bufs at offset. It returns net.ErrClosed after Close.
func (h *Helper) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	return 0, errors.ErrUnsupported
}

// Write sends packets, each starting at offset of its buffer, into the
// namespace. It never waits: what the device does not take is dropped and counted.
func (h *Helper) Write(bufs [][]byte, offset int) (int, error) { return 0, errors.ErrUnsupported }

// BatchSize is the number of packets that Read returns at most.
func (h *Helper) BatchSize() int { return 1 }

// Kind is "tun" or "veth".
func (h *Helper) Kind() string { return "" }

// Pid is the helper's process id.
func (h *Helper) Pid() int { return 0 }

// Done is closed when the helper process has ended.
func (h *Helper) Done() <-chan struct{} { return nil }

// Err says why the helper ended, nil while it runs and after Close.
func (h *Helper) Err() error { return nil }

// Close ends the helper and waits for it.
func (h *Helper) Close() error { return errors.ErrUnsupported }

// Main is the helper process. It returns the process's exit code.
func Main(args []string) int { return 1 }

// Client asks a helper for sockets. It is safe for concurrent use.
type Client struct{}

// Dial connects to the helper that listens at path.
func Dial(path string) (*Client, error) { return nil, errors.ErrUnsupported }

// Socket makes a socket in the session namespace. The descriptor is
// close-on-exec and the caller's. The error wraps the errno the kernel gave,
// or ENETDOWN when the helper cannot be reached.
func (c *Client) Socket(domain, typ, proto int) (int, error) { return -1, errors.ErrUnsupported }

// Close closes the connection to the helper.
func (c *Client) Close() error { return errors.ErrUnsupported }
