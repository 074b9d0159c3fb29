package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// idle is the group, within another one, of the processes that make room for all
// others of that one.
const idle = "idle"

// MakeIdle makes the idle group within group. What is in it runs when nothing else
// within group wants to (cpu.idle, Linux 5.15).
func MakeIdle(group string) error {
	dir, err := idleDir(group)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cpu.idle"), []byte("1"), 0)
}

// OpenIdle opens the list of processes of the idle group within group: a pid that
// is written to it moves there.
func OpenIdle(group string) (*os.File, error) {
	dir, err := idleDir(group)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
}

// MoveIdle moves a process to the idle group within group.
func MoveIdle(group string, pid int) error {
	f, err := OpenIdle(group)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	return errors.Join(err, f.Close())
}

func idleDir(group string) (string, error) {
	hs, err := Hierarchies()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(hs, Hierarchy.schedules)
	if i < 0 {
		return "", fmt.Errorf("no hierarchy schedules processors: %w", errors.ErrUnsupported)
	}
	return filepath.Join(hs[i].Mount, group, idle), nil
}

// schedules reports whether the groups of h share out processor time.
func (h Hierarchy) schedules() bool {
	return h.V2 && h.Mount == root || slices.Contains(strings.Split(h.Options, ","), "cpu")
}
