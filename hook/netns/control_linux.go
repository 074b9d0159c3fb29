package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxControl bounds one control message. Both ends are the same executable.
const maxControl = 16 << 10

// setup is what the daemon asks of the helper, first of all. Later ones change
// Addrs alone. By closing, the control socket tells that the daemon has gone.
type setup struct {
	Socket string       `json:"socket,omitempty"`
	Addrs  []netip.Addr `json:"addrs"`
	MTU    int          `json:"mtu,omitempty"`
}

// ready is the helper's answer. The first one carries the descriptor of the packet
// device unless Failure is set.
type ready struct {
	Kind     string   `json:"kind,omitempty"`
	Index    int      `json:"index,omitempty"` // veth: interface the packet socket is bound to
	Peer     []byte   `json:"peer,omitempty"`  // veth: link address of the session's end
	Warnings []string `json:"warnings,omitempty"`
	Failure  *failure `json:"failure,omitempty"`

	Nets []netip.Prefix `json:"nets,omitempty"` // of a guest: those that its namespace is in by itself
}

// admission is what the daemon says to a guest whose device it has.
type admission struct {
	Refused string `json:"refused,omitempty"` // why the guest has to go, or ""
}

// failure is an error on its way to the daemon, errno kept.
type failure struct {
	Stage string        `json:"stage"` // one of the stage constants
	Text  string        `json:"text"`
	Errno syscall.Errno `json:"errno"`
}

func (f *failure) Error() string { return f.Text }

func (f *failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// stageError says in which stage of the start err happened.
func stageError(stage string, err error) *failure {
	f := &failure{Stage: stage, Text: err.Error()}
	errors.As(err, &f.Errno)
	return f
}

// sendControl sends one message with fd attached, or none when fd is negative.
func sendControl(c *net.UnixConn, msg any, fd int) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	if len(b) > maxControl {
		return fmt.Errorf("control message of %d bytes: %w", len(b), unix.EMSGSIZE)
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	if _, _, err := c.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("send control message: %w", err)
	}
	return nil
}

// recvControl receives one message and the descriptor with it, -1 if none.
func recvControl(c *net.UnixConn, msg any) (int, error) {
	b := make([]byte, maxControl)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return -1, fmt.Errorf("receive control message: %w", err)
	}
	fd, err := parseRight(oob[:oobn])
	if err != nil {
		return -1, fmt.Errorf("receive control message: %w", err)
	}
	if n == 0 {
		return fd, io.EOF
	}
	if err := json.Unmarshal(b[:n], msg); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, fmt.Errorf("decode control message: %w", err)
	}
	return fd, nil
}

// parseRight returns the one descriptor in the control data, -1 if there is none.
func parseRight(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	fd := -1
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, f := range fds {
			if fd >= 0 {
				unix.Close(f)
				continue
			}
			fd = f
		}
	}
	return fd, nil
}

// unixConn makes a conn of one end of a socketpair and closes fd.
func unixConn(fd int, name string) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("open %s: %w", name, unix.ENOTSOCK)
	}
	return uc, nil
}
