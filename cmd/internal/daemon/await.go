package daemon

import (
	"context"
	"os"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/proc"
)

// endWait bounds the wait for a daemon that has nothing left to do: it takes milliseconds, and longer on a machine that is busy.
const endWait = 10 * time.Second

// awaitEnd waits until the daemon with process id pid has ended, so that who has
// ended the last session finds nothing of it. 0 and this process itself are not
// waited for.
func awaitEnd(ctx context.Context, pid int) {
	if pid <= 0 || pid == os.Getpid() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	proc.AwaitExit(ctx, pid)
}
