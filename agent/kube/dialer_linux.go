package kube

import (
	"os"
	"syscall"
)

// From linux/tcp.h; package syscall lacks them.
const (
	tcpUserTimeout  = 0x12
	tcpNotsentLowat = 0x19
)

// controlSocket bounds how long sent bytes may stay unacknowledged, in
// milliseconds, and how many bytes wait unsent in the kernel, where they would
// only add delay.
func controlSocket(_, _ string, c syscall.RawConn) error {
	var opt error
	err := c.Control(func(fd uintptr) {
		if opt = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, 20_000); opt != nil {
			return
		}
		opt = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, 128<<10)
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", opt)
}
