package rundir

import (
	"net"
	"os"
)

// peerUID returns who is at the other end of c.
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var (
		uid    uint32
		uidErr error
	)
	if err := raw.Control(func(fd uintptr) { uid, uidErr = connectedUID(int(fd)) }); err != nil {
		return 0, err
	}
	if uidErr != nil {
		return 0, os.NewSyscallError("getsockopt", uidErr)
	}
	return int(uid), nil
}
