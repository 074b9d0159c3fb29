package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/view"
)

// What the shim tells Run: one byte, and an errno after a failure. A message with
// the listener comes first; when the command was executed the socket just closes.
const (
	msgListener    = 'L' // with the descriptor
	msgNoView      = 'V'
	msgNotFiltered = 'F'
	msgNotExecuted = 'X'
)

// The rungs that have a filter.
const (
	rungSeccomp        = "seccomp"
	rungSeccompIOURing = "seccomp+io_uring" // io_uring is allowed
	rungRelay          = "relay"
)

// filterOf returns the program of a rung.
func filterOf(rung string) []instruction {
	if rung == rungRelay {
		return relayFilter(machines()[runtime.GOARCH])
	}
	return filter(machines()[runtime.GOARCH], latitude{ioURing: rung == rungSeccompIOURing})
}

// ShimMain makes the command's view, installs the filter, hands its listener to
// Run and executes the command. args are the rung, the number of the control
// descriptor, the view, the file to execute and the command's argument vector. It
// returns an exit code only when that was not possible; Run has been told why then.
func ShimMain(args []string) int {
	if len(args) < 5 {
		fmt.Fprintln(os.Stderr, "not started by borrownet run")
		return codeOurs
	}
	ctl, err := strconv.Atoi(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "not started by borrownet run:", err)
		return codeOurs
	}
	unix.CloseOnExec(ctl)
	var shown view.View
	if err := json.Unmarshal([]byte(args[2]), &shown); err != nil {
		fmt.Fprintln(os.Stderr, "not started by borrownet run:", err)
		return codeOurs
	}
	// The filter holds for this thread, which is the one that calls execve. It may
	// trap sendmsg(2), and there is nobody yet to answer: another thread, which is
	// there before, passes the listener on.
	runtime.LockOSThread()
	if err := shown.Enter(); err != nil {
		tell(ctl, msgNoView, err, -1)
		return codeOurs
	}
	installed, told := make(chan installation), make(chan error)
	go func() { // ends with the message
		runtime.LockOSThread() // a thread of its own
		told <- hello(ctl, installed)
	}()
	installed <- installation{ready: true}
	listener, err := install(filterOf(args[0]))
	installed <- installation{listener: listener, err: err}
	if terr := <-told; err != nil || terr != nil {
		return codeOurs // Run knows, or is gone
	}
	unix.Close(listener)
	err = execute(args[3], args[4:])
	tell(ctl, msgNotExecuted, err, -1)
	return commandError(args[3], err).Code
}

// installation is how the filter's installation went; ready comes before it, so
// that the thread that passes it on has none.
type installation struct {
	ready    bool
	listener int
	err      error
}

// hello tells Run about the filter.
func hello(ctl int, installed <-chan installation) error {
	<-installed
	in := <-installed
	if in.err != nil {
		return tell(ctl, msgNotFiltered, in.err, -1)
	}
	return tell(ctl, msgListener, nil, in.listener)
}

// tell sends one message to Run.
func tell(ctl int, kind byte, err error, fd int) error {
	msg := []byte{kind, 0}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		msg[1] = byte(errno)
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(ctl, msg, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// execute is execve(2), and as execvp(3) has it a shell for a script without a
// first line that names one.
func execute(path string, argv []string) error {
	err := unix.Exec(path, argv, os.Environ())
	if err != unix.ENOEXEC {
		return err
	}
	const shell = "/bin/sh"
	if unix.Exec(shell, append([]string{shell, path}, argv[1:]...), os.Environ()) != nil {
		return unix.ENOEXEC
	}
	return nil
}

// install puts the filter on the calling thread and returns its listener. A
// thread without CAP_SYS_ADMIN gives up gaining privileges for it (seccomp(2)).
func install(prog []instruction) (int, error) {
	if !mayFilter() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, err
		}
	}
	code := make([]unix.SockFilter, len(prog))
	for i, in := range prog {
		code[i] = unix.SockFilter(in)
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	// WAIT_KILLABLE_RECV keeps a signal from interrupting the program between the
	// two steps of an answer. Before Linux 5.19 the answer is the same, and a
	// signal at that moment costs the program an unused descriptor.
	for _, extra := range []uintptr{unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0} {
		fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|extra, uintptr(unsafe.Pointer(&fprog)))
		if e == 0 {
			unix.CloseOnExec(int(fd)) // the kernel does so already
			return int(fd), nil
		}
		if e != unix.EINVAL || extra == 0 {
			return -1, e
		}
	}
	return -1, unix.EINVAL
}

// mayFilter reports whether the thread may install a filter as it is.
func mayFilter() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return false
	}
	return caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// Probe reports why a notification filter cannot be used here, nil if it can.
// The error is an *UnsupportedError.
func Probe() error {
	result := make(chan error)
	// The thread keeps the filter and ends with this goroutine, which never
	// unlocks it.
	go func() {
		runtime.LockOSThread()
		result <- probe()
	}()
	return <-result
}

// probe installs a filter that allows everything on the calling thread.
func probe() error {
	fd, err := install([]instruction{{Code: bpfRet, K: actAllow}})
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		return explain(errno)
	}
	defer unix.Close(fd)
	// With no such notification the answer is ENOENT; a kernel before 5.9 has no
	// such request and says EINVAL.
	add := addFD{}
	if err := ioctl(fd, ioctlAddFD, unsafe.Pointer(&add)); err == unix.EINVAL || err == unix.ENOTTY {
		return explain(unix.EOPNOTSUPP)
	}
	return nil
}
