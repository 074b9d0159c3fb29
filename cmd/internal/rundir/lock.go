package rundir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPoll is how often Lock tries again: flock(2) cannot be waited for with a
// deadline.
const lockPoll = 20 * time.Millisecond

// ErrLocked reports that another process holds a lock.
var ErrLocked = errors.New("held by another process")

// Lock is a flock(2) on a file of a Dir. It ends with the process.
type Lock struct{ file *os.File }

// Lock waits for the lock name until ctx ends.
func (d *Dir) Lock(ctx context.Context, name string) (*Lock, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		l, err := d.TryLock(name)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", d.Path(name), ctx.Err())
		case <-tick.C:
		}
	}
}

// TryLock takes the lock name or returns ErrLocked.
func (d *Dir) TryLock(name string) (*Lock, error) {
	for {
		f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				// The last daemon removed the empty directory just now.
				if _, err = At(d.path); err == nil {
					continue
				}
			}
			return nil, fmt.Errorf("open lock: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, ErrLocked
			}
			return nil, os.NewSyscallError("flock", err)
		}
		if sameFile(f, d.Path(name)) {
			return &Lock{file: f}, nil
		}
		f.Close() // its last holder removed it between our open and flock
	}
}

func sameFile(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, there)
}

// Release gives the lock up and removes its file, so that nothing stays
// behind: who waits for the lock notices and makes a new file.
func (l *Lock) Release() {
	_ = os.Remove(l.file.Name())
	l.file.Close()
}
