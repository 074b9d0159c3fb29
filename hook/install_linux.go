package hook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// installedPrefix begins the name of the directory that Install makes. Programs
// need what is in it for as long as they live: it stays.
const installedPrefix = "lib-"

// Installed are the paths of what make built, as files that programs can load.
type Installed struct {
	Library string // for LD_PRELOAD
	Enter   string // executes a command inside a session's namespace, see hook/preload/enter.c
}

// Install puts the library into the first of the directories that takes it,
// unless it is there already. Each must be the user's own.
func Install(dirs ...string) (Installed, error) {
	library, err := content(libraryName)
	if err != nil {
		return Installed{}, err
	}
	enter, err := content(enterName)
	if err != nil {
		return Installed{}, err
	}
	sum := sha256.Sum256(append(bytes.Clone(library), enter...))
	var errs []error
	for _, dir := range dirs {
		path := filepath.Join(dir, installedPrefix+hex.EncodeToString(sum[:6]))
		in := Installed{Library: filepath.Join(path, libraryName), Enter: filepath.Join(path, enterName)}
		err := loadable(dir)
		if err == nil {
			err = ownDir(path)
		}
		if err == nil {
			err = errors.Join(place(in.Library, library), place(in.Enter, enter))
		}
		if err == nil {
			return in, nil
		}
		errs = append(errs, err)
	}
	return Installed{}, fmt.Errorf("install preload library: %w", errors.Join(errs...))
}

// loadable reports why the dynamic loader would not take a library in dir
// (ld.so(8): the list is separated by spaces and colons).
func loadable(dir string) error {
	if strings.ContainsAny(dir, " :\t\n") {
		return fmt.Errorf("%s: LD_PRELOAD takes no path with a space or a colon in it", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%s: mounted noexec", dir)
	}
	return nil
}

// ownDir makes the directory if need be, and refuses one that others can write to.
func ownDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: not a directory of this user alone", path)
	}
	return nil
}

// place writes a file that may be in use: in one step, and not again if it is
// there as it should be.
func place(path string, data []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o555), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
