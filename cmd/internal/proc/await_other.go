//go:build !linux

package proc

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// pollEvery is how often AwaitExit looks.
const pollEvery = 50 * time.Millisecond

// AwaitExit waits until the process pid has ended or ctx is done.
func AwaitExit(ctx context.Context, pid int) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := p.Signal(syscall.Signal(0)); err != nil && !errors.Is(err, os.ErrPermission) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
