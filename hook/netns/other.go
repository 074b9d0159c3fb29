//go:build !linux

package netns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
)

// Where there are no network namespaces everything says so. What the types and functions
// are is said where they are of use.

// What a container and its session agree on.
const (
	GuestSocket   = "/borrownet.sock"
	GuestReady    = "ready"
	ExitAbandoned = 3
)

func unsupported() error {
	return &UnsupportedError{
		Reason: "network namespaces are Linux's, and this is " + runtime.GOOS,
		Hint:   "borrownet forward works here; programs can be wrapped in a Linux virtual machine",
		Err:    errors.ErrUnsupported,
	}
}

// Config says what the session namespace looks like.
type Config struct {
	Exe    []string
	Socket string
	Addrs  []netip.Addr
	MTU    int
	Logger *slog.Logger
}

// packets is a packet device.
type packets struct{}

// Kind is that of no device.
func (packets) Kind() string { return "" }

// BatchSize is that of no device.
func (packets) BatchSize() int { return 1 }

// Read returns an error.
func (packets) Read([][]byte, []int, int) (int, error) { return 0, net.ErrClosed }

// Write returns an error.
func (packets) Write([][]byte, int) (int, error) { return 0, net.ErrClosed }

// Done is never closed.
func (packets) Done() <-chan struct{} { return nil }

// Close has nothing to do.
func (packets) Close() error { return nil }

// Helper is the daemon's end of a session namespace.
type Helper struct{ packets }

// Start returns an *UnsupportedError.
func Start(context.Context, Config) (*Helper, error) { return nil, unsupported() }

// Probe returns an *UnsupportedError.
func Probe(context.Context, []string) (string, error) { return "", unsupported() }

// Pid is that of no process.
func (*Helper) Pid() int { return 0 }

// Err returns an *UnsupportedError.
func (*Helper) Err() error { return unsupported() }

// Readdress returns an *UnsupportedError.
func (*Helper) Readdress(context.Context, []netip.Addr) error { return unsupported() }

// Main fails.
func Main([]string) int { return 1 }

// Client asks a helper for sockets.
type Client struct{}

// Dial returns an *UnsupportedError.
func Dial(string) (*Client, error) { return nil, unsupported() }

// Socket returns an *UnsupportedError.
func (*Client) Socket(int, int, int) (int, error) { return -1, unsupported() }

// DialTCP returns an *UnsupportedError.
func (*Client) DialTCP(context.Context, netip.AddrPort) (*net.TCPConn, error) {
	return nil, unsupported()
}

// Ports returns an *UnsupportedError.
func (*Client) Ports() ([]Port, error) { return nil, unsupported() }

// Avoid returns an *UnsupportedError.
func (*Client) Avoid([]uint16) error { return unsupported() }

// Taken returns an *UnsupportedError.
func Taken() ([]uint16, error) { return nil, unsupported() }

// Close has nothing to do.
func (*Client) Close() error { return nil }

// GuestConfig says what a guest's part of the session looks like.
type GuestConfig struct {
	Addrs []netip.Addr
	MTU   int
	Admit func(nets []netip.Prefix) error
}

// Guest is the daemon's end of a container's network namespace.
type Guest struct{ packets }

// ListenGuests returns an *UnsupportedError.
func ListenGuests(string) (*net.UnixListener, error) { return nil, unsupported() }

// Welcome returns an *UnsupportedError.
func Welcome(_ context.Context, ctl *net.UnixConn, _ GuestConfig) (*Guest, error) {
	return nil, errors.Join(unsupported(), ctl.Close())
}

// Nets are none.
func (*Guest) Nets() []netip.Prefix { return nil }

// GuestMain fails.
func GuestMain([]string) int { return 1 }
