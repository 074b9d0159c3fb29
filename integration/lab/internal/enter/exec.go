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

// groupFD is the first descriptor that os/exec passes on.
const groupFD = 3

func execArgs(uid int, group bool, path string, argv []string) []string {
	return append([]string{"lab", ExecVerb, strconv.Itoa(uid), strconv.FormatBool(group), path}, argv...)
}

// Exec is the first program of a command inside of the namespaces: it becomes
// the user, ties its life to the process that entered, and turns into the
// command. os/exec cannot do this, since it takes the pid 0 that a parent has
// outside of the pid namespace for a parent that died.
func Exec(args []string) error {
	runtime.LockOSThread() // the signal below is asked for by thread
	if len(args) < 4 {
		return errors.New(ExecVerb + ": want UID GROUP PATH ARGV…")
	}
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("%s: %w", ExecVerb, err)
	}
	if args[1] == "true" {
		if err := joinGroup(); err != nil {
			return err
		}
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
	return &os.PathError{Op: "exec", Path: args[2], Err: syscall.Exec(args[2], args[3:], os.Environ())}
}

// joinGroup moves this process before it has children that would stay behind.
func joinGroup() error {
	f := os.NewFile(groupFD, "cgroup.procs")
	_, err := f.WriteString("0")
	return errors.Join(err, f.Close())
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
