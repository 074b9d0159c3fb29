package daemon

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// endWait bounds the wait for a daemon that has nothing left to do.
const endWait = 3 * time.Second

// awaitEnd waits until the process pid has ended, so that who has ended the last
// session finds nothing of it. 0 and this process itself are not waited for.
func awaitEnd(ctx context.Context, pid int) {
	if pid <= 0 || pid == os.Getpid() {
		return
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return // it has ended
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	deadline := time.Now().Add(endWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	for time.Now().Before(deadline) && ctx.Err() == nil {
		left := int(time.Until(deadline).Milliseconds())
		// Short slices keep an interrupt from waiting.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, min(left, 100))
		if n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}
