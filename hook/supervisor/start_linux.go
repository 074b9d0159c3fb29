package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shimTimeout bounds the time until the shim has installed its filter.
const shimTimeout = 10 * time.Second

// start runs the shim, takes the listener from it and begins to answer.
func start(ctx context.Context, cfg Config, path string) (*command, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := pair[1]
	ctl, err := controlConn(pair[0])
	if err != nil {
		unix.Close(theirs)
		return nil, err
	}
	pid, err := fork(cfg, path, theirs)
	unix.Close(theirs)
	if err != nil {
		ctl.Close()
		return nil, err
	}
	listener, err := receiveListener(ctx, ctl)
	if err != nil {
		ctl.Close()
		abandon(pid)
		return nil, err
	}
	sup, err := newSupervisor(listener, cfg)
	if err != nil {
		unix.Close(listener)
		ctl.Close()
		abandon(pid)
		return nil, err
	}
	c := &command{
		pid: pid, name: cfg.Argv[0], logger: cfg.Logger, sup: sup,
		loop: make(chan error, 1), exec: make(chan error, 1),
	}
	go func() { c.loop <- sup.run() }()                  // ends with the tree, or at sup.stop
	go func() { c.exec <- executed(ctl, cfg.Argv[0]) }() // ends when the shim executes or ends
	return c, nil
}

// startUnhooked starts the command as it is.
func startUnhooked(_ context.Context, cfg Config, path string) (*command, error) {
	files, undo, err := descriptors(cfg)
	if err != nil {
		return nil, err
	}
	defer undo()
	file, argv := path, cfg.Argv
	if len(cfg.Wrapper) > 0 {
		file, argv = cfg.Wrapper[0], append(append(append([]string{}, cfg.Wrapper...), path), cfg.Argv...)
	}
	attr := &syscall.ProcAttr{Dir: cfg.Dir, Env: cfg.Env, Files: files}
	pid, err := syscall.ForkExec(file, argv, attr)
	if err == unix.ENOEXEC {
		const shell = "/bin/sh" // as execvp(3) has it
		pid, err = syscall.ForkExec(shell, append([]string{shell, file}, argv[1:]...), attr)
	}
	switch {
	case err != nil && len(cfg.Wrapper) > 0:
		return nil, fmt.Errorf("start command: %w", &os.PathError{Op: "fork/exec", Path: file, Err: err})
	case err != nil:
		return nil, commandError(cfg.Argv[0], err)
	}
	return &command{pid: pid, name: cfg.Argv[0], logger: cfg.Logger, loopDone: true}, nil
}

// abandon kills a shim that is of no use and reaps it.
func abandon(pid int) {
	unix.Kill(pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// fork starts the shim. Its control socket gets a number that no inherited
// descriptor has, so that the command still finds those (LISTEN_FDS, a make
// jobserver, a shell's process substitution) where it expects them.
func fork(cfg Config, path string, ctl int) (int, error) {
	files, undo, err := descriptors(cfg)
	if err != nil {
		return 0, err
	}
	defer undo()
	number := strconv.Itoa(len(files))
	files = append(files, uintptr(ctl))
	rung := rungSeccomp
	if cfg.AllowIOURing {
		rung = rungSeccompIOURing
	}
	if cfg.Relay != nil {
		rung = rungRelay
	}
	shown, err := json.Marshal(cfg.View)
	if err != nil {
		return 0, fmt.Errorf("start command: %w", err)
	}
	argv := append(append(append([]string{}, cfg.Shim...), rung, number, string(shown), path), cfg.Argv...)
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Dir: cfg.Dir, Env: cfg.Env, Files: files, Sys: cfg.View.Attr()})
	if err != nil && !cfg.View.Empty() && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC)) {
		return 0, &ViewError{err} // what clone(2) says of namespaces
	}
	if err != nil {
		return 0, fmt.Errorf("start command: %w", &os.PathError{Op: "fork/exec", Path: argv[0], Err: err})
	}
	return pid, nil
}

const noFile = ^uintptr(0)

// descriptors returns the descriptor table of the command.
func descriptors(cfg Config) (files []uintptr, undo func(), err error) {
	undo = func() {}
	files = []uintptr{noFile, noFile, noFile}
	for i, f := range []*os.File{cfg.Stdin, cfg.Stdout, cfg.Stderr} {
		if f != nil {
			files[i] = uintptr(f.Fd())
			continue
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			undo()
			return nil, nil, err
		}
		prev := undo
		undo = func() { null.Close(); prev() }
		files[i] = null.Fd()
	}
	inherited, err := inheritable()
	if err != nil {
		undo()
		return nil, nil, err
	}
	for _, fd := range inherited {
		for len(files) <= fd {
			files = append(files, noFile)
		}
		files[fd] = uintptr(fd)
	}
	return files, undo, nil
}

// inheritable lists the open descriptors above 2 that are not close-on-exec.
// None of them is ours: Go opens everything close-on-exec.
func inheritable() ([]int, error) {
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, e := range ents {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

func controlConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("open control socket: %w", unix.ENOTSOCK)
	}
	return uc, nil
}

// receiveListener waits for the shim's first message.
func receiveListener(ctx context.Context, ctl *net.UnixConn) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, shimTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ctl.SetReadDeadline(time.Unix(1, 0)) })
	msg, fd, err := receive(ctl)
	stop()
	switch {
	case ctx.Err() != nil && err != nil:
		return -1, fmt.Errorf("start command: %w", ctx.Err())
	case err != nil:
		return -1, err
	case msg[0] == msgNoView:
		return -1, &ViewError{syscall.Errno(msg[1])}
	case msg[0] == msgNotFiltered:
		return -1, explain(syscall.Errno(msg[1]))
	case msg[0] != msgListener || fd < 0:
		return -1, fmt.Errorf("start command: unexpected message %q of shim", msg[0])
	}
	ctl.SetReadDeadline(time.Time{})
	return fd, nil
}

// executed waits until the shim has become the command, and closes ctl.
func executed(ctl *net.UnixConn, name string) error {
	defer ctl.Close()
	msg, fd, err := receive(ctl)
	if fd >= 0 {
		unix.Close(fd)
	}
	if err != nil {
		return nil // the socket closed: at execve, or with a shim that was killed
	}
	if msg[0] == msgNotExecuted {
		return commandError(name, syscall.Errno(msg[1]))
	}
	return fmt.Errorf("start command: unexpected message %q of shim", msg[0])
}

// receive reads one message of the shim and the descriptor with it, -1 if none.
func receive(ctl *net.UnixConn) (msg [2]byte, fd int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := ctl.ReadMsgUnix(msg[:], oob)
	if err != nil {
		return msg, -1, fmt.Errorf("start command: %w", err)
	}
	fd = -1
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return msg, -1, os.NewSyscallError("recvmsg", err)
		}
		if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	if n != len(msg) {
		return msg, fd, errShimGone
	}
	return msg, fd, nil
}

var errShimGone = errors.New("start command: shim ended before its filter was installed")
