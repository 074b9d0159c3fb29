package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// cleanUpWait bounds the wait for a client that is starting another daemon.
const cleanUpWait = 2 * time.Second

// CleanUp removes what a killed daemon left in dir, but for the files that keep
// reports. While a daemon lives it does nothing. The helper of a session calls
// it when its daemon is gone.
func CleanUp(dir *rundir.Dir, keep func(name string) bool) error {
	lock, err := dir.TryLock(rundir.DaemonLock)
	if errors.Is(err, rundir.ErrLocked) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean up after daemon: %w", err)
	}
	defer func() {
		lock.Release()
		dir.Remove()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpWait)
	defer cancel()
	start, err := dir.Lock(ctx, rundir.StartLock)
	if err != nil {
		return fmt.Errorf("clean up after daemon: %w", err)
	}
	defer start.Release()
	return dir.Sweep(keep)
}
