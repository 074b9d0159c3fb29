// Package state owns the directories of running labs: one per lab, locked by
// the process that holds the lab, swept when that process is gone.
package state

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
)

// Shared is the id of the lab that `lab up` starts and others use.
const Shared = "up"

const (
	lockFile   = "lock"
	recordFile = "lab.json"
	// removal bounds the wait for processes that a SIGKILL is about to end.
	removal = time.Minute
)

// A Record tells other processes how to find a lab that is ready.
type Record struct {
	Holder  int       `json:"holder"` // process that holds the lab
	Node    int       `json:"node"`   // process 1 of the node, as the host numbers it
	Laptop  int       `json:"laptop"` // process 1 of the laptop, as the host numbers it
	Started time.Time `json:"started"`
}

// A Lab is a directory this process holds.
type Lab struct {
	ID  string
	Dir string

	lock *os.File // flock held until Remove
}

// Cgroup is the name of the lab's control groups.
func (l *Lab) Cgroup() string { return cgroupOf(l.Dir) }

// cgroupOf names the groups after the directory, since one machine may hold
// labs of several users and caches.
func cgroupOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("borrownet-lab-%x-%s", sum[:4], filepath.Base(dir))
}

// ErrRunning is the answer to starting a lab whose id is taken.
var ErrRunning = errors.New("a lab is already running")

// Create sweeps what dead labs left under root, then makes and locks the
// directory of a new one.
func Create(root, id string) (*Lab, error) {
	unlock, err := lockRoot(root)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweep(root); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, id)
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrRunning)
	} else if err != nil {
		return nil, err
	}
	lock, err := tryLock(dir)
	if err != nil {
		return nil, err
	}
	l := &Lab{ID: id, Dir: dir, lock: lock}
	if err := cgroup.Create(l.Cgroup()); err != nil {
		return nil, errors.Join(err, l.Remove())
	}
	return l, nil
}

// Remove removes the control groups and the directory. The lab's processes must
// be dead or dying.
func (l *Lab) Remove() error {
	defer l.lock.Close()
	return remove(l.Dir)
}

// Publish writes the record for Find.
func (l *Lab) Publish(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(l.Dir, recordFile+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(l.Dir, recordFile))
}

// Find returns the directory and the record of the running lab id, or an error
// that is fs.ErrNotExist if there is none that is ready.
func Find(root, id string) (dir string, r Record, err error) {
	dir = filepath.Join(root, id)
	lock, err := tryLock(dir)
	if err == nil {
		lock.Close() // nobody holds it: left by a process that was killed
		return "", Record{}, fs.ErrNotExist
	}
	if !errors.Is(err, ErrRunning) {
		return "", Record{}, err
	}
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return "", Record{}, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return "", Record{}, fmt.Errorf("read %s: %w", recordFile, err)
	}
	return dir, r, nil
}

// Sweep removes what labs left whose holder was killed.
func Sweep(root string) error {
	unlock, err := lockRoot(root)
	if err != nil {
		return err
	}
	defer unlock()
	return sweep(root)
}

// List returns the ids of the directories under root.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

func sweep(root string) error {
	ids, err := List(root)
	if err != nil {
		return err
	}
	for _, id := range ids {
		dir := filepath.Join(root, id)
		lock, err := tryLock(dir)
		if errors.Is(err, ErrRunning) {
			continue
		}
		if err != nil {
			return err
		}
		err = remove(dir)
		lock.Close()
		if err != nil {
			return fmt.Errorf("sweep lab %s: %w", id, err)
		}
	}
	return nil
}

// remove empties the control groups first: when they are gone so is every
// process that could still write to dir.
func remove(dir string) error {
	if err := cgroup.Remove(cgroupOf(dir), removal); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// lockRoot keeps two processes from creating and sweeping at the same time.
func lockRoot(root string) (unlock func(), err error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(root, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { f.Close() }, nil
}

// tryLock locks dir, or returns ErrRunning if another process holds it.
func tryLock(dir string) (*os.File, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrRunning
	}
	return nil, os.NewSyscallError("flock", err)
}
