package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Exit codes of a command that could not be executed, as a shell gives them.
const (
	codeOurs          = 125
	codeNotExecutable = 126
	codeNotFound      = 127
)

// CommandError says that the command could not be executed.
type CommandError struct {
	Name string // as the user wrote it
	Code int    // 126 found but not executable, 127 not found
	Err  error
}

func (e *CommandError) Error() string { return fmt.Sprintf("execute %s: %v", e.Name, e.Err) }

func (e *CommandError) Unwrap() error { return e.Err }

// ViewError says that the command could not be given its view. It was not
// executed, and may be tried without one.
type ViewError struct{ Err error }

func (e *ViewError) Error() string { return "change what the command sees: " + e.Err.Error() }

func (e *ViewError) Unwrap() error { return e.Err }

// commandError turns an error of execve(2) or of the search before it into a
// CommandError.
func commandError(name string, err error) *CommandError {
	code := codeNotExecutable
	if errors.Is(err, unix.ENOENT) {
		code = codeNotFound
	}
	return &CommandError{Name: name, Code: code, Err: err}
}

// lookPath finds the file of a command as a shell does: in PATH of env, relative
// entries counted from dir. The result is what execve(2) takes in dir.
func lookPath(name, dir string, env []string) (string, error) {
	if name == "" {
		return "", commandError(`""`, unix.ENOENT)
	}
	if strings.Contains(name, "/") {
		if err := executable(within(dir, name)); err != nil {
			return "", commandError(name, err)
		}
		return name, nil
	}
	var found error // a file that is there but cannot be executed
	for _, entry := range filepath.SplitList(pathOf(env)) {
		if entry == "" {
			entry = "."
		}
		path := filepath.Join(entry, name)
		if !strings.Contains(path, "/") {
			path = "./" + path
		}
		if fi, err := os.Stat(within(dir, path)); err != nil || fi.IsDir() {
			continue // a directory that may not be searched counts as empty
		}
		err := executable(within(dir, path))
		if err == nil {
			return path, nil
		}
		if found == nil {
			found = err
		}
	}
	if found == nil {
		found = fmt.Errorf("%w in PATH", unix.ENOENT)
	}
	return "", commandError(name, found)
}

func within(dir, path string) string {
	if dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// pathOf returns PATH of env; the last entry counts, as os/exec has it.
func pathOf(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return v
		}
	}
	return "/usr/local/bin:/usr/bin:/bin"
}

// executable reports why path cannot be executed, nil if it can.
func executable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			return pe.Err
		}
		return err
	}
	if fi.IsDir() {
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// privileged reports whether the file would gain privileges when executed, which
// no_new_privs prevents.
func privileged(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return false
	}
	if fi.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}
