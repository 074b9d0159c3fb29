package rundir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// Memory returns the directory for what must never be on a disk, and makes it if
// need be: d itself where that is in memory, else one beside it in /dev/shm, which
// is swept and removed with d. Without either it is an error.
func (d *Dir) Memory() (*Dir, error) {
	path := d.memoryPath()
	if path == "" {
		return nil, &fault.Error{Code: fault.Laptop, ID: "BN2005", Op: "find a place in memory for the pod's secrets",
			Reason: "they may not be on a disk, as " + d.path + " is, and there is no tmpfs at " + memoryName(),
			Hint:   "set XDG_RUNTIME_DIR to a directory in memory (tmpfs) of your own, usually /run/user/" + strconv.Itoa(os.Getuid())}
	}
	if path == d.path {
		return d, nil
	}
	m, err := At(path)
	if err != nil {
		return nil, err
	}
	if !InMemory(path) { // something else was there
		return nil, refuse(path, "not in memory", "remove it: rm -r "+path)
	}
	return m, nil
}

// memoryPath is where Memory is, or "" if it cannot be.
func (d *Dir) memoryPath() string {
	switch {
	case InMemory(d.path):
		return d.path
	case InMemory(d.memory):
		// One for each runtime directory: whoever has the locks there has this too. The
		// user's id is not in the name, because a session's helper has another one.
		sum := sha256.Sum256([]byte(d.path))
		return filepath.Join(d.memory, memoryPrefix+hex.EncodeToString(sum[:memorySum]))
	}
	return ""
}

// The name of a directory beside one that is on a disk: this, and so many bytes in hex.
const (
	memoryPrefix = "borrownet-"
	memorySum    = 8
)

// Abandoned is how long nothing has changed in a place in memory that somebody else may
// remove, if it is empty: who has just made it is about to put something there.
const Abandoned = time.Hour

// Others returns the places in memory that this user's other runtime directories have
// beside them, or had: they may be gone for good.
func (d *Dir) Others() []*Dir {
	if !InMemory(d.memory) {
		return nil
	}
	entries, err := os.ReadDir(d.memory)
	if err != nil {
		return nil
	}
	var out []*Dir
	for _, e := range entries {
		path := filepath.Join(d.memory, e.Name())
		sum, ours := strings.CutPrefix(e.Name(), memoryPrefix)
		if raw, err := hex.DecodeString(sum); !ours || err != nil || len(raw) != memorySum || path == d.path {
			continue
		}
		if info, err := os.Lstat(path); err == nil && check(path, info) == nil {
			out = append(out, &Dir{path: path, memory: d.memory})
		}
	}
	return out
}

// RemoveAbandoned removes one of Others if it is.
func (d *Dir) RemoveAbandoned() {
	if info, err := os.Lstat(d.path); err == nil && time.Since(info.ModTime()) > Abandoned {
		_ = os.Remove(d.path) // fails unless it is empty
	}
}

// memoryName is what a message calls the place.
func memoryName() string {
	if memoryRoot == "" {
		return "any place that is known"
	}
	return memoryRoot
}

// WriteTemp makes a file of mode 0600 for which pattern is as in os.CreateTemp.
// The last daemon may remove the directory at the same time.
func (d *Dir) WriteTemp(pattern string, text []byte) (string, error) {
	for {
		f, err := os.CreateTemp(d.path, pattern)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err = At(d.path); err == nil {
				continue
			}
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(text)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", errors.Join(err, os.Remove(f.Name()))
		}
		return f.Name(), nil
	}
}
