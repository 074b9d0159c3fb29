package proc

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// listenerTimeout bounds a connect(2) to a server that does not accept.
const listenerTimeout = time.Second

// Listener returns the process that listens at the path of a Unix socket
// (SO_PEERCRED, unix(7)). It connects for that, and sends nothing.
func Listener(path string) (pid int, err error) {
	c, err := net.DialTimeout("unix", path, listenerTimeout)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); ctlErr != nil {
		return 0, ctlErr
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}
