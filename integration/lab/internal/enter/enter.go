// Package enter runs a command in the namespaces of another process.
package enter

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/mounts"
)

// A Command is what to run and where.
type Command struct {
	PID  int // process whose namespaces are entered, as this process numbers it
	Argv []string
	Env  []string
	// Dir is the working directory, or Fallback if it is not there.
	Dir, Fallback string
	// UID and GID of the command; 0 is root.
	UID int
	// HideTUN takes /dev/net/tun away from the command.
	HideTUN bool
	// Group is the list of processes of the control group that the command joins, or nil.
	Group  *os.File
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
}

// kinds of namespaces that are entered. The mount namespace is last: after it
// the /proc of this process is out of sight.
var kinds = []string{"cgroup", "ipc", "uts", "net", "pid", "mnt"}

// Run runs the command and returns its exit code, 128 and the signal if one
// ended it. SIGTERM, SIGHUP and SIGINT are passed on to it.
func (c Command) Run() (code int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	defer signal.Stop(signals)
	type result struct {
		code int
		err  error
	}
	started := make(chan *os.Process, 1)
	done := make(chan result, 1)
	go func() {
		// The thread is never unlocked, so it dies with this goroutine instead of
		// running others in foreign namespaces; and the command dies with it.
		runtime.LockOSThread()
		code, err := c.run(started)
		done <- result{code, err}
	}()
	var child *os.Process
	for {
		select {
		case child = <-started:
		case s := <-signals:
			if child != nil {
				_ = child.Signal(s) // it may just have ended
			}
		case r := <-done:
			return r.code, r.err
		}
	}
}

// run is called on a thread that is given up afterwards.
func (c Command) run(started chan<- *os.Process) (int, error) {
	if err := setNamespaces(c.PID); err != nil {
		return 0, err
	}
	if c.HideTUN {
		if err := hideTUN(); err != nil {
			return 0, err
		}
	}
	path, err := c.lookPath()
	if err != nil {
		return 0, err
	}
	dir := c.Dir
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = c.Fallback
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: execArgs(c.UID, c.Group != nil, path, c.Argv),
		Env: append(c.Env, "PWD="+dir), Dir: dir,
		SysProcAttr: &syscall.SysProcAttr{},
	}
	// A nil *os.File in an interface would not be nil.
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		cmd.Stderr = c.Stderr
	}
	if c.Group != nil {
		cmd.ExtraFiles = []*os.File{c.Group}
	}
	restore := foreground(cmd, c.Stdin)
	defer restore()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	started <- cmd.Process
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func setNamespaces(pid int) error {
	// setns(2) refuses a mount namespace to a thread that shares its root and cwd.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	fds := make([]int, 0, len(kinds))
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s namespace of process %d: %w", kind, pid, err)
		}
		fds = append(fds, fd)
	}
	for i, kind := range kinds {
		if err := unix.Setns(fds[i], 0); err != nil {
			return fmt.Errorf("enter %s namespace of process %d: %w", kind, pid, err)
		}
	}
	return nil
}

// hideTUN gives the thread a mount namespace of its own whose /dev/net/tun only
// root may open.
func hideTUN() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := mounts.Private(); err != nil {
		return err
	}
	if err := mounts.Fresh("tmpfs", "/dev/net", "mode=755"); err != nil {
		return err
	}
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
		return &os.PathError{Op: "mknod", Path: "/dev/net/tun", Err: err}
	}
	return nil
}

// lookPath finds the command in the PATH that it will have itself.
func (c Command) lookPath() (string, error) {
	name := c.Argv[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, kv := range c.Env {
		dirs, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(dirs) {
			file := filepath.Join(dir, name)
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return file, nil
			}
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// foreground makes the command the job in the foreground of the terminal, as a
// shell would, since in its pid namespace it cannot name its parent's group.
// The returned function takes the terminal back.
func foreground(cmd *exec.Cmd, in *os.File) (restore func()) {
	if in == nil {
		return func() {}
	}
	fd := int(in.Fd())
	own, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil || own != unix.Getpgrp() {
		return func() {} // no terminal, or in the background
	}
	cmd.SysProcAttr.Foreground = true
	cmd.SysProcAttr.Ctty = fd
	// Taking it back is a write from the background.
	signal.Ignore(syscall.SIGTTOU)
	return func() {
		_ = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, own)
		signal.Reset(syscall.SIGTTOU)
	}
}
