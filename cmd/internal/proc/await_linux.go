package proc

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// pollSlice is how long AwaitExit may take to notice that ctx is done, in
// milliseconds.
const pollSlice = 100

// AwaitExit waits until the process pid has ended or ctx is done.
func AwaitExit(ctx context.Context, pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return // it has ended
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, pollSlice)
		if n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}
