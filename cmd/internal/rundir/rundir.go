// Package rundir is the directory where a user's borrownet keeps its sockets,
// locks, keys and log: $XDG_RUNTIME_DIR/borrownet, or /tmp/borrownet-UID where
// there is none. It belongs to the user and is closed to everyone else; a directory
// that is not so is refused. Memory is where secrets are, which is beside it if it
// is on a disk.
package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// The names of the fixed files.
const (
	SocketName = "daemon.sock"
	LogName    = "daemon.log"
	StartLock  = "start.lock"  // held by who starts or ends the daemon
	DaemonLock = "daemon.lock" // held by the daemon for its lifetime
)

// LibraryPrefix begins the names of the hook's files, which programs of earlier
// sessions may still need: without them what they start would be on the laptop's
// own network.
const LibraryPrefix = "lib-"

// maxSocketPath is the room for a path in sockaddr_un, unix(7), less its NUL.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// longestName bounds the names of sockets in the directory.
const longestName = len("session-0123456789abcdef.sock")

// Dir is a checked runtime directory.
type Dir struct {
	path   string
	memory string // where Memory may be if path is on a disk
}

// Open returns the calling user's directory; it makes it if need be.
func Open() (*Dir, error) {
	uid := os.Getuid()
	if base := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(base) && ownedBy(base, uid) {
		return At(filepath.Join(base, "borrownet"))
	}
	return At(filepath.Join(os.TempDir(), "borrownet-"+strconv.Itoa(uid)))
}

func ownedBy(path string, uid int) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}

// At returns the directory at path, which it makes if need be.
func At(path string) (*Dir, error) {
	if len(path)+1+longestName > maxSocketPath {
		return nil, refuse(path, "too long for a socket's address", "set XDG_RUNTIME_DIR to a shorter path, usually /run/user/"+strconv.Itoa(os.Getuid()))
	}
	info, err := ensure(path)
	if err != nil {
		return nil, refuse(path, err.Error(), "set XDG_RUNTIME_DIR to a directory of your own")
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	return &Dir{path: path, memory: memoryRoot}, nil
}

// check refuses what is not a directory of this user alone.
func check(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return refuse(path, "not a directory", "remove it: rm "+path)
	case !ok || int(st.Uid) != os.Getuid():
		return refuse(path, "belongs to someone else", "set XDG_RUNTIME_DIR to a directory of your own")
	case info.Mode().Perm() != 0o700:
		return refuse(path, fmt.Sprintf("mode is %#o, must be 0700", info.Mode().Perm()), "chmod 700 "+path)
	}
	return nil
}

// ensure makes the directory if need be and describes what is at path. The last
// daemon may remove it at the same time.
func ensure(path string) (fs.FileInfo, error) {
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		info, err := os.Lstat(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return info, err
		}
	}
}

func refuse(path, reason, hint string) error {
	return &fault.Error{Code: fault.Laptop, ID: "BN2001", Op: "use runtime directory", Object: path, Reason: reason, Hint: hint}
}

// String returns the directory's path.
func (d *Dir) String() string { return d.path }

// Path returns the path of the file name in the directory.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Stale returns the paths of what earlier daemons and shells left, here and in
// Memory: every file but locks, the hook's files and those that keep reports.
func (d *Dir) Stale(keep func(name string) bool) ([]string, error) {
	var paths []string
	for _, dir := range d.both() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("read runtime directory: %w", err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".lock") && !strings.HasPrefix(e.Name(), LibraryPrefix) && !keep(e.Name()) {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	return paths, nil
}

// Sweep removes what is stale. Only the holder of both locks may call it.
func (d *Dir) Sweep(keep func(name string) bool) error {
	paths, err := d.Stale(keep)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// Remove removes the directory if nothing is in it, and then Memory likewise: as long
// as a daemon has its files here, Memory is the daemon's, empty or not.
func (d *Dir) Remove() {
	// Keys of parked agents keep what they are in: that is the only reason it stays.
	for _, dir := range d.both() {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
}

// both are the paths of the directory and of Memory, if that is there and is
// another one. What somebody else put in its place is not ours to look into.
func (d *Dir) both() []string {
	path := d.memoryPath()
	if info, err := os.Lstat(path); path == d.path || err != nil || check(path, info) != nil {
		return []string{d.path}
	}
	return []string{d.path, path}
}
