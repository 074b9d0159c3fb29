package enter

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExecVerb is the first argument that makes the lab binary call Exec.
const ExecVerb = "__exec"

func execArgs(uid int, path string, argv []string) []string {
	return append([]string{"lab", ExecVerb, strconv.Itoa(uid), path}, argv...)
}

// Exec is the first program of a command inside of the namespaces: it becomes
// the user, ties its life to the process that entered, and turns into the
// command. os/exec cannot do this, since it takes the pid 0 that a parent has
// outside of the pid namespace for a parent that died.
func Exec(args []string) error {
	runtime.LockOSThread() // the signal below is asked for by thread
	if len(args) < 3 {
		return errors.New(ExecVerb + ": want UID PATH ARGV…")
	}
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("%s: %w", ExecVerb, err)
	}
	if err := become(uid); err != nil {
		return err
	}
	// After the change of user, which clears it (PR_SET_PDEATHSIG(2const)).
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if os.Getppid() != 0 {
		return errors.New("the process that entered has ended")
	}
	return &os.PathError{Op: "exec", Path: args[1], Err: syscall.Exec(args[1], args[2:], os.Environ())}
}

func become(uid int) error {
	if uid == 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setgid(uid); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return os.NewSyscallError("setuid", err)
	}
	return nil
}
