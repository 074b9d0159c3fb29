package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/flow"
)

// ErrLocal says that a destination is this machine's own loopback.
var ErrLocal = errors.New("localhost is this machine, not the pod")

// A Dialer opens flows from a session's pod.
type Dialer struct {
	// Way asks the daemon how to reach a host.
	Way func(ctx context.Context, host string) (session.Way, error)
}

// loopbackName is what localhost and the names below it are (RFC 6761).
func loopbackName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// open opens a flow that waits for its near end. The error wraps an errno, or is
// ErrLocal, or what the daemon says.
func (d *Dialer) open(ctx context.Context, host string, port uint16) (*switchboard.Flow, error) {
	asked := host
	if loopbackName(host) {
		host = "127.0.0.1"
	}
	way, err := d.Way(ctx, host)
	if err != nil {
		return nil, err
	}
	client, err := switchboard.Dial(way.Socket)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%s has no address", asked)
	for _, a := range way.Addrs {
		f, oerr := client.Open(ctx, flow.TCP, netip.AddrPortFrom(a, port))
		switch {
		case oerr == nil:
			return f, nil
		case errors.Is(oerr, switchboard.ErrLocal):
			return nil, ErrLocal
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		// A pod without IPv6 has no route to the addresses that come last: what the
		// others said is the reason.
		if a.Is4() || !errors.Is(oerr, syscall.ENETUNREACH) || len(way.Addrs) == 1 {
			err = oerr
		}
	}
	return nil, fmt.Errorf("connect to %s: %w", net.JoinHostPort(asked, strconv.Itoa(int(port))), err)
}

// hand makes c the near end of f. Afterwards it is the daemon's.
func hand(f *switchboard.Flow, c *net.TCPConn) error {
	defer f.Close()
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("hand a connection over: %w", err)
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = f.Attach(int(fd)) }); err != nil {
		return fmt.Errorf("hand a connection over: %w", err)
	}
	return sent
}

// dial returns a conn of this process that is a flow to address, HOST:PORT.
func (d *Dialer) dial(ctx context.Context, address string) (*net.TCPConn, error) {
	host, port, err := split(address)
	if err != nil {
		return nil, err
	}
	f, err := d.open(ctx, host, port)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := pair(ctx)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := hand(f, theirs); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return ours, nil
}

// pair returns the two ends of a connection within this process: the daemon takes
// TCP only. Nobody else can have an end of it.
func pair(ctx context.Context) (ours, theirs *net.TCPConn, err error) {
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, fmt.Errorf("make a connection: %w", err)
	}
	defer ln.Close()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp4", ln.Addr().String())
	if err != nil {
		return nil, nil, fmt.Errorf("make a connection: %w", err)
	}
	ours = c.(*net.TCPConn) // what "tcp4" gives
	for {
		theirs, err := ln.AcceptTCP()
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("make a connection: %w", err), ours.Close())
		}
		if theirs.RemoteAddr().String() == ours.LocalAddr().String() {
			return ours, theirs, nil
		}
		theirs.Close() // somebody else was quicker
	}
}

// split reads HOST:PORT.
func split(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", address)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", address)
	}
	return host, uint16(n), nil
}
