package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds one request: the program that asked is stopped meanwhile.
// A living helper answers within microseconds.
const answerTimeout = 5 * time.Second

// Client asks a helper for sockets. It is safe for concurrent use. It keeps one
// connection and makes a new one when that is broken, so it survives a helper
// that comes back at the same path.
type Client struct {
	path  string
	limit time.Duration // answerTimeout

	mu     sync.Mutex
	fd     int  // guarded by mu; -1 = not connected
	closed bool // guarded by mu
}

// Dial connects to the helper that listens at path.
func Dial(path string) (*Client, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	c := &Client{path: path, limit: answerTimeout, fd: -1}
	if err := c.connect(); err != nil {
		return nil, fmt.Errorf("dial session helper: %w", err)
	}
	return c, nil
}

// connect makes the connection. The descriptor is blocking, not the poller's: a
// round trip without the scheduler is the shortest.
func (c *Client) connect() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	limit := unix.NsecToTimeval(int64(c.limit))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit), // connect(2) waits as long too
	)
	if err != nil {
		unix.Close(fd)
		return os.NewSyscallError("setsockopt", err)
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: c.path})
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return &os.PathError{Op: "connect", Path: c.path, Err: err}
	}
	c.fd = fd
	return nil
}

// Socket makes a socket in the session namespace. The descriptor is
// close-on-exec and the caller's. The error is or wraps the errno the kernel
// gave, ENETDOWN when the helper cannot be reached.
func (c *Client) Socket(domain, typ, proto int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return -1, net.ErrClosed
	}
	fresh := c.fd < 0
	for {
		if c.fd < 0 {
			if err := c.connect(); err != nil {
				return -1, unreachable(err)
			}
			fresh = true
		}
		fd, errno, err := c.ask(domain, typ, proto)
		if err == nil {
			if errno != 0 {
				return -1, errno
			}
			return fd, nil
		}
		// A late answer must not be taken for the next one's.
		unix.Close(c.fd)
		c.fd = -1
		if fresh || errors.Is(err, unix.EAGAIN) {
			return -1, unreachable(err)
		}
	}
}

// unreachable is ENETDOWN to a program, the cause to a log.
func unreachable(err error) error {
	return fmt.Errorf("session helper: %w (%v)", unix.ENETDOWN, err)
}

// ask makes one request. err means that the connection is of no more use.
func (c *Client) ask(domain, typ, proto int) (fd int, errno syscall.Errno, err error) {
	var req [requestSize]byte
	binary.LittleEndian.PutUint32(req[0:], uint32(domain))
	binary.LittleEndian.PutUint32(req[4:], uint32(typ))
	binary.LittleEndian.PutUint32(req[8:], uint32(proto))
	for {
		err = unix.Sendmsg(c.fd, req[:], nil, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, 0, os.NewSyscallError("sendmsg", err)
	}
	var reply [1]byte
	var oob [24]byte // CMSG_SPACE of one descriptor
	for {
		n, oobn, _, _, err := unix.Recvmsg(c.fd, reply[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return -1, 0, os.NewSyscallError("recvmsg", err)
		case n == 0:
			return -1, 0, os.NewSyscallError("recvmsg", unix.ECONNRESET)
		}
		fd, err := parseRight(oob[:oobn])
		if err != nil {
			return -1, 0, err
		}
		if reply[0] == 0 && fd < 0 {
			return -1, unix.EMFILE, nil // no room for it in this process (unix(7), MSG_CTRUNC)
		}
		return fd, syscall.Errno(reply[0]), nil
	}
}

// Close closes the connection to the helper.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
	return nil
}
