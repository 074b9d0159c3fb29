package supervisor

import (
	"errors"
	"fmt"
	"syscall"
)

// UnsupportedError says that this machine or this process tree does not allow a
// notification filter, why, and what would change that. It is an
// errors.ErrUnsupported.
type UnsupportedError struct {
	Reason string // one clause, without a period
	Hint   string // what to do
	Err    error  // what the kernel said
}

func (e *UnsupportedError) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap gives the cause and errors.ErrUnsupported.
func (e *UnsupportedError) Unwrap() []error { return []error{e.Err, errors.ErrUnsupported} }

// explain gives an error of installing the filter its words.
func explain(errno syscall.Errno) error {
	err := fmt.Errorf("install seccomp filter: %w", errno)
	switch errno {
	case syscall.EBUSY:
		return &UnsupportedError{
			Reason: "another tool already supervises this process tree (an outer borrownet, podman or LXD)",
			Hint:   "leave the outer borrownet shell, or start the command outside that tool",
			Err:    err,
		}
	case syscall.ENOSYS, syscall.EINVAL, syscall.EOPNOTSUPP:
		return &UnsupportedError{
			Reason: "this kernel lacks seccomp user notification",
			Hint:   "Linux 5.9 or newer is needed, 5.19 or newer is better (uname -r)",
			Err:    err,
		}
	case syscall.EPERM, syscall.EACCES:
		return &UnsupportedError{
			Reason: "seccomp filters are forbidden here",
			Hint:   "in a container: --security-opt seccomp=unconfined",
			Err:    err,
		}
	}
	return err
}
