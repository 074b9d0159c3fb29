package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DialTCP connects from inside the session's namespace, by its kernel, to a program
// of the session.
func (c *Client) DialTCP(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error) {
	domain, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(dst.Port())})
	if a := dst.Addr(); a.Is4() {
		sa.(*unix.SockaddrInet4).Addr = a.As4()
	} else {
		domain, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(dst.Port()), Addr: a.As16()}
	}
	fd, err := c.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dst.String())
	defer f.Close()
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		return nil, fmt.Errorf("dial %s in the session: %w", dst, err)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("dial %s in the session: %w", dst, err)
	}
	tcp := conn.(*net.TCPConn) // what a stream socket of these families is
	if err := connected(ctx, tcp); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s in the session: %w", dst, err), tcp.Close())
	}
	return tcp, nil
}

// connected waits for the outcome of a connect that is under way.
func connected(ctx context.Context, c *net.TCPConn) error {
	stop := context.AfterFunc(ctx, func() { c.SetWriteDeadline(time.Unix(1, 0)) })
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var outcome error
	err = raw.Write(func(fd uintptr) bool {
		if _, err := unix.Getpeername(int(fd)); err == nil {
			return true
		}
		v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && v != 0 {
			err = syscall.Errno(v)
		}
		outcome = err
		return err != nil
	})
	if !stop() && ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, outcome)
}
