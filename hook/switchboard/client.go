package switchboard

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Client asks the daemon at a unix socket for flows and ports. It holds no conn
// between requests, so it survives a daemon that comes back at the same path. The
// zero client is of no use, see Dial.
type Client struct{ path string }

// Dial returns a client of the server at path, which it tries once.
func Dial(path string) (*Client, error) {
	c := &Client{path: path}
	conn, err := c.conn(context.Background())
	if err != nil {
		return nil, fmt.Errorf("dial session: %w", err)
	}
	conn.Close()
	return c, nil
}

// Flow is a flow that the daemon has opened.
type Flow struct{ conn *net.UnixConn }

// Open asks for a flow to dst and waits for the answer: for TCP until the far
// side has accepted, for UDP not at all. The error is ErrLocal, ctx's, or an
// errno, that which connect(2) of the program is to give.
func (c *Client) Open(ctx context.Context, proto flow.Proto, dst netip.AddrPort) (*Flow, error) {
	conn, err := c.request(ctx, request{proto: proto, dst: dst})
	if err != nil {
		return nil, err
	}
	return &Flow{conn: conn}, nil
}

// Publish asks for the port of a listener at the address to be opened on the
// laptop's loopback, until it does not listen any more. With v6only the wildcard
// address is not that of IPv4. The error is ctx's or an errno: EADDRINUSE says
// that somebody else on the laptop has the port.
func (c *Client) Publish(ctx context.Context, at netip.AddrPort, v6only bool) error {
	r := request{want: wantPort, proto: flow.TCP, dst: at}
	if v6only {
		r.want = wantPortOnlyV6
	}
	conn, err := c.request(ctx, r)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Attend tells the daemon that programs run, until the result is closed.
func (c *Client) Attend(ctx context.Context) (io.Closer, error) {
	conn, err := c.request(ctx, request{want: wantAttention, proto: flow.TCP})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// request makes one request and returns its conn if the answer is good.
func (c *Client) request(ctx context.Context, r request) (*net.UnixConn, error) {
	conn, err := c.conn(ctx)
	if err != nil {
		// No daemon, no network: never the laptop's.
		return nil, fmt.Errorf("dial session: %w (%v)", syscall.ENETUNREACH, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = ask(conn, r)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return conn, nil
}

func (c *Client) conn(ctx context.Context) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil // what "unix" gives
}

func ask(conn *net.UnixConn, r request) error {
	if _, err := conn.Write(r.marshal()); err != nil {
		return fmt.Errorf("ask session: %w (%v)", syscall.ENETUNREACH, err)
	}
	var b [answerSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return fmt.Errorf("ask session: %w (%v)", syscall.ENETUNREACH, err)
	}
	switch b[0] {
	case verdictRelay:
		return nil
	case verdictLocal:
		return ErrLocal
	}
	if b[1] == 0 {
		return syscall.ENETUNREACH
	}
	return syscall.Errno(b[1])
}

// Attach hands fd over: the daemon carries the flow to it. The caller keeps its
// descriptor.
func (f *Flow) Attach(fd int) error { return sendFD(f.conn, fd) }

// Close drops a flow that has no far end yet, and ends one of UDP. One of TCP
// goes on until its conns end.
func (f *Flow) Close() error { return f.conn.Close() }
