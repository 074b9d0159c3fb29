package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// cleanUpWait bounds the wait for the kernel to take the killed daemon's lock
// back, and for a client that is starting another daemon.
const cleanUpWait = 2 * time.Second

// CleanUp removes what a killed daemon left in dir, but for the files that keep
// reports. When another daemon lives by then it does nothing.
func CleanUp(dir *rundir.Dir, keep func(name string) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpWait)
	defer cancel()
	start, err := dir.Lock(ctx, rundir.StartLock)
	if err != nil {
		return fmt.Errorf("clean up after daemon: %w", err)
	}
	defer func() {
		start.Release()
		dir.Remove()
	}()
	lock, err := dir.Lock(ctx, rundir.DaemonLock)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean up after daemon: %w", err)
	}
	defer lock.Release()
	return dir.Sweep(keep)
}
