package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
)

// Client asks a broker as the library does, for a program that the library cannot
// be in.
type Client struct{ path string }

// NewClient returns a client of the broker that a value of hook.EnvVar names.
func NewClient(value string) (*Client, error) {
	path, err := hook.BrokerOf(value)
	return &Client{path: path}, err
}

// Resolve has a DNS query answered.
func (c *Client) Resolve(ctx context.Context, query []byte) ([]byte, error) {
	_, reply, err := c.ask(ctx, hook.Request{Op: hook.OpResolve, Size: uint32(len(query))}, query, -1)
	return reply, err
}

// Dial connects to dst; network is "tcp" or "udp".
func (c *Client) Dial(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
	domain, typ := unix.AF_INET6, unix.SOCK_STREAM
	if dst.Addr().Unmap().Is4() {
		domain = unix.AF_INET
	}
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), dst.String())
	defer f.Close()
	a, _, err := c.ask(ctx, hook.Request{Op: hook.OpConnect, Addr: dst}, nil, fd)
	if err == nil && a.Verdict == hook.VerdictLocal {
		err = errors.New("an address of this machine") // nothing that this is for
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(dst), Err: err}
	}
	return net.FileConn(f)
}

// ask makes one call. The error is the errno that the program's call is to give.
func (c *Client) ask(ctx context.Context, req hook.Request, payload []byte, fd int) (hook.Answer, []byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return hook.Answer{}, nil, fmt.Errorf("ask session: %w (%v)", unix.ENETDOWN, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix(req.Append(nil), oob, nil); err != nil {
		return hook.Answer{}, nil, fmt.Errorf("ask session: %w", err)
	}
	// Without a payload the answer may be here already, and the broker's end closed.
	if len(payload) > 0 {
		if _, err := conn.Write(payload); err != nil {
			return hook.Answer{}, nil, fmt.Errorf("ask session: %w", err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(conn, hook.AnswerSize+hook.MaxMessage))
	if err != nil {
		return hook.Answer{}, nil, fmt.Errorf("ask session: %w", err)
	}
	a, err := hook.ParseAnswer(b)
	if err != nil {
		return a, nil, fmt.Errorf("ask session: %w (%v)", unix.ENETDOWN, err)
	}
	if a.Verdict == hook.VerdictFail {
		return a, nil, syscall.Errno(a.Errno)
	}
	return a, b[hook.AnswerSize:], nil
}
