package laptop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/mounts"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// A place is a directory of the host that the user must be able to reach at the
// same path, held open so that mounts on its parents do not hide it.
type place struct {
	path string
	fd   int
}

func openAll(s spec.Spec) ([]place, error) {
	paths := append([]string{s.Checkout, s.GoRoot, s.ModCache}, s.Tools...)
	slices.Sort(paths) // parents first
	var ps []place
	for _, path := range slices.Compact(paths) {
		if path == "" {
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: err}, closeAll(ps))
		}
		ps = append(ps, place{path, fd})
	}
	return ps, nil
}

func closeAll(ps []place) error {
	var errs []error
	for _, p := range ps {
		errs = append(errs, unix.Close(p.fd))
	}
	return errors.Join(errs...)
}

// expose covers parents that only their owner may pass, such as /root, with an
// empty directory and puts the places back into it. The rest of such a parent
// becomes invisible, which is right: the user could not read it.
func expose(ps []place) error {
	for _, p := range ps {
		dir, err := closedParent(p.path)
		if err != nil {
			return err
		}
		if dir == "" {
			continue
		}
		if err := mounts.Fresh("tmpfs", dir, "mode=755"); err != nil {
			return err
		}
	}
	for _, p := range ps {
		same, err := p.visible()
		if err != nil {
			return err
		}
		if same {
			continue
		}
		if err := mounts.BindTree(fmt.Sprintf("/proc/self/fd/%d", p.fd), p.path); err != nil {
			return err
		}
	}
	return nil
}

// closedParent returns the topmost parent of path that others may not pass.
func closedParent(path string) (string, error) {
	var parents []string
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		parents = append(parents, dir)
	}
	slices.Reverse(parents)
	for _, dir := range parents {
		info, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) {
			return "", nil // below a directory that is covered already
		}
		if err != nil {
			return "", err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return dir, nil
		}
	}
	return "", nil
}

// visible reports whether the path still leads to the open directory.
func (p place) visible() (bool, error) {
	var held, found unix.Stat_t
	if err := unix.Fstat(p.fd, &held); err != nil {
		return false, &os.PathError{Op: "fstat", Path: p.path, Err: err}
	}
	err := unix.Stat(p.path, &found)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	return held.Dev == found.Dev && held.Ino == found.Ino, nil
}
