package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Stages of the helper's start, for the words an error gets.
const (
	stageSpawn   = "spawn"   // clone, uid map
	stageDevice  = "device"  // packet device
	stageAddress = "address" // addresses, routes
	stageSocket  = "socket"  // listener for programs
)

// UnsupportedError says that this machine does not let an unprivileged user
// make a session namespace, why, and what would change that. It is an
// errors.ErrUnsupported.
type UnsupportedError struct {
	Reason string // one clause, without a period
	Hint   string // what to do, several lines if a file has to be written
	Err    error  // what the kernel said
}

func (e *UnsupportedError) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap gives the cause and errors.ErrUnsupported.
func (e *UnsupportedError) Unwrap() []error { return []error{e.Err, errors.ErrUnsupported} }

// deviceError is both ways to a packet device failing.
type deviceError struct{ tun, veth error }

func (e *deviceError) Error() string {
	return fmt.Sprintf("%v; veth pair: %v", e.tun, e.veth)
}

func (e *deviceError) Unwrap() []error { return []error{e.veth, e.tun} }

// explain turns an error of making or filling the namespace into an
// UnsupportedError when the machine's settings account for it. root is the root
// file system, exe the path of the program that a profile must name.
func explain(root fs.FS, exe string, stage string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case syscall.EPERM, syscall.EACCES:
		if u := refused(root, exe, err); u != nil {
			return u
		}
	case syscall.EROFS:
		return &UnsupportedError{
			Reason: "this container may not set up namespaces: its /proc/sys is read-only",
			Hint:   "start it with --security-opt systempaths=unconfined",
			Err:    err,
		}
	case syscall.ENOSPC, syscall.EUSERS:
		if stage == stageSpawn {
			return &UnsupportedError{
				Reason: fmt.Sprintf("user namespaces are switched off or used up (user.max_user_namespaces=%s)",
					setting(root, "proc/sys/user/max_user_namespaces")),
				Hint: "sudo sysctl -w user.max_user_namespaces=15000",
				Err:  err,
			}
		}
	case syscall.EINVAL, syscall.ENOSYS:
		if stage == stageSpawn {
			return &UnsupportedError{
				Reason: "this kernel has no user namespaces",
				Hint:   "a kernel with CONFIG_USER_NS and CONFIG_NET_NS is needed",
				Err:    err,
			}
		}
	}
	if stage == stageDevice {
		return &UnsupportedError{
			Reason: "neither /dev/net/tun nor a veth pair can be used",
			Hint:   "sudo modprobe tun && sudo chmod 0666 /dev/net/tun (in a container: --device /dev/net/tun)",
			Err:    err,
		}
	}
	if stage == stageSpawn && (errno == syscall.EPERM || errno == syscall.EACCES) {
		return &UnsupportedError{
			Reason: "the kernel refuses user namespaces to this user",
			Hint:   "unshare --user --net true shows the same error; a security module or a seccomp filter forbids it",
			Err:    err,
		}
	}
	return err
}

// refused finds who forbids namespaces when the kernel only says "not permitted".
// A profile may let the clone pass and take the capabilities instead, so later
// stages ask too.
func refused(root fs.FS, exe string, err error) *UnsupportedError {
	switch {
	case setting(root, "proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return &UnsupportedError{
			Reason: "AppArmor blocks unprivileged user namespaces for borrownet",
			Hint: fmt.Sprintf(`write this profile to /etc/apparmor.d/borrownet, then run "sudo systemctl reload apparmor":
  abi <abi/4.0>,
  include <tunables/global>
  profile borrownet "%s" flags=(unconfined) {
    userns,
  }`, exe),
			Err: err,
		}
	case setting(root, "proc/sys/kernel/unprivileged_userns_clone") == "0":
		return &UnsupportedError{
			Reason: "user namespaces are switched off (kernel.unprivileged_userns_clone=0)",
			Hint:   "sudo sysctl -w kernel.unprivileged_userns_clone=1",
			Err:    err,
		}
	case setting(root, "proc/sys/user/max_user_namespaces") == "0":
		return &UnsupportedError{
			Reason: "user namespaces are switched off (user.max_user_namespaces=0)",
			Hint:   "sudo sysctl -w user.max_user_namespaces=15000",
			Err:    err,
		}
	case inContainer(root):
		return &UnsupportedError{
			Reason: "this container forbids namespaces",
			Hint:   "start it with --security-opt seccomp=unconfined --device /dev/net/tun",
			Err:    err,
		}
	}
	return nil
}

// inContainer reports whether this looks like the inside of a container engine's
// default confinement.
func inContainer(root fs.FS) bool {
	for _, p := range []string{".dockerenv", "run/.containerenv"} {
		if _, err := fs.Stat(root, p); err == nil {
			return true
		}
	}
	b, err := fs.ReadFile(root, "proc/self/status")
	return err == nil && strings.Contains(string(b), "\nSeccomp:\t2\n")
}

// setting reads a one-line file, "" if it does not exist.
func setting(root fs.FS, path string) string {
	b, err := fs.ReadFile(root, path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
