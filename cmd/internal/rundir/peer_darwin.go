package rundir

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerUID returns who is at the other end of c (LOCAL_PEERCRED, unix(4)).
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var (
		cred    *unix.Xucred
		credErr error
	)
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, os.NewSyscallError("getsockopt LOCAL_PEERCRED", credErr)
	}
	return int(cred.Uid), nil
}
