package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
)

// The notification interface, linux/seccomp.h.
const (
	ioctlRecv    = unix.SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = unix.SECCOMP_IOCTL_NOTIF_SEND
	ioctlIDValid = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
	ioctlAddFD   = 0x40182103 // SECCOMP_IOCTL_NOTIF_ADDFD
)

// notification is struct seccomp_notif.
type notification struct {
	ID    uint64
	Pid   uint32 // of the calling thread
	Flags uint32
	Nr    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	ID         uint64
	Flags      uint32
	SrcFD      uint32
	NewFD      uint32
	NewFDFlags uint32
}

func ioctl(fd int, op uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), op, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// supervisor answers the notifications of one listener.
type supervisor struct {
	listener int
	wake     int // eventfd: readable = stop
	machine  machine
	home     home
	logger   *slog.Logger
	relay    *relay // nil unless this is the relay rung
	// connecting is Config.Connecting, may be nil.
	connecting func(path string) func()

	// Of the seccomp rung: what sockets that change sides need.
	identity  Identity
	tree      *Tree  // may be nil
	namespace uint64 // SO_NETNS_COOKIE of the laptop's sockets
	registrar registrar
	moved     movedTable
	reserved  farend.Reserved
	hidden    sync.Once // the warning about programs that cannot be looked into

	wg sync.WaitGroup // answers that take time
}

func newSupervisor(listener int, cfg Config) (*supervisor, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	h, err := findHome()
	if err != nil {
		unix.Close(wake)
		return nil, err
	}
	s := &supervisor{
		listener: listener,
		wake:     wake,
		machine:  machines()[runtime.GOARCH],
		home:     h,
		logger:   cfg.Logger,

		connecting: cfg.Connecting,
	}
	if cfg.Relay != nil {
		s.relay = newRelay(s, cfg.Relay)
		return s, nil
	}
	s.identity, s.tree, s.namespace = cfg.Identity, cfg.Tree, namespaceCookie()
	return s, nil
}

// stop ends run.
func (s *supervisor) stop() {
	one := [8]byte{1}
	unix.Write(s.wake, one[:]) // cannot fail short of 2⁶⁴ calls
}

// close gives the descriptors back. Whoever is under the filter still gets ENOSYS
// from trapped calls. It must come after run.
func (s *supervisor) close() {
	if s.relay != nil {
		s.relay.close()
	} else {
		s.wg.Wait()
		s.registrar.close()
		s.reserved.Close()
	}
	unix.Close(s.listener)
	unix.Close(s.wake)
}

// run answers until the last process under the filter has ended, or until stop.
// It takes a thread for itself, with signals blocked: a signal between the steps
// of an answer would only cost time, but a program is waiting.
func (s *supervisor) run() error {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	if err := blockSignals(); err != nil {
		return err
	}
	fds := []unix.PollFd{
		{Fd: int32(s.listener), Events: unix.POLLIN},
		{Fd: int32(s.wake), Events: unix.POLLIN},
	}
	for {
		// RECV by itself does not return when the last process ends (before 6.11).
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return os.NewSyscallError("poll", err)
		}
		got := fds[0].Revents
		switch {
		case fds[1].Revents != 0:
			return nil
		case got&unix.POLLIN != 0:
			if err := s.next(); err != nil {
				return err
			}
		case got&unix.POLLHUP != 0:
			return nil
		case got != 0:
			return fmt.Errorf("poll seccomp listener: events %#x", got)
		}
	}
}

// blockSignals blocks what can be blocked without hiding a fault of our own.
func blockSignals() error {
	var set unix.Sigset_t
	for i := range set.Val {
		set.Val[i] = ^uint64(0)
	}
	for _, sig := range []syscall.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP} {
		set.Val[0] &^= 1 << (uint(sig) - 1)
	}
	return os.NewSyscallError("pthread_sigmask", unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil))
}

// next receives one notification and answers it.
func (s *supervisor) next() error {
	var n notification
	switch err := ioctl(s.listener, ioctlRecv, unsafe.Pointer(&n)); err {
	case nil:
	case unix.EINTR, unix.ENOENT: // the caller was killed meanwhile
		return nil
	default:
		return os.NewSyscallError("SECCOMP_IOCTL_NOTIF_RECV", err)
	}
	v := s.judge(&n, s.decide)
	if v.later == nil {
		return s.answer(&n, v)
	}
	// One program waits; the others must not wait for it.
	s.wg.Go(func() {
		if err := s.answer(&n, s.judge(&n, func(*notification) verdict { return v.later() })); err != nil {
			s.logger.Error("answer is lost", "err", err, "pid", n.Pid)
		}
	})
	return nil
}

// answer sends the verdict about n.
func (s *supervisor) answer(n *notification, v verdict) error {
	r := response{ID: n.ID, Val: v.val, Error: -int32(v.errno)}
	if v.proceed {
		r.Flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	if v.errno != 0 {
		r.Val = 0
	}
	if err := ioctl(s.listener, ioctlSend, unsafe.Pointer(&r)); err != nil && err != unix.ENOENT {
		return os.NewSyscallError("SECCOMP_IOCTL_NOTIF_SEND", err)
	}
	return nil
}

// alive reports whether the caller still waits for the answer to n. What was read
// from its memory before is its own only then: its pid may be somebody else's by now.
func (s *supervisor) alive(n *notification) bool {
	id := n.ID
	return ioctl(s.listener, ioctlIDValid, unsafe.Pointer(&id)) == nil
}

// inject puts a duplicate of fd into the caller of n and returns its number there.
// The answer that names it is a step of its own: with SECCOMP_ADDFD_FLAG_SEND a
// signal to this process makes the kernel answer 0, the caller's standard input.
func (s *supervisor) inject(n *notification, fd int, closeOnExec bool) (int, error) {
	add := addFD{ID: n.ID, SrcFD: uint32(fd)}
	if closeOnExec {
		add.NewFDFlags = unix.O_CLOEXEC
	}
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), ioctlAddFD, uintptr(unsafe.Pointer(&add)))
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// judge decides and logs. A fault of ours must not leave the caller waiting.
func (s *supervisor) judge(n *notification, decide func(*notification) verdict) (v verdict) {
	defer func() {
		if r := recover(); r != nil {
			s.logger.Error("panic in verdict", "err", fmt.Sprint(r), "syscall", n.Nr, "pid", n.Pid)
			v = verdict{errno: unix.ENETDOWN}
		}
	}()
	v = decide(n)
	if v.why != nil && s.logger.Enabled(context.Background(), slog.LevelDebug) {
		s.logger.Debug("trapped call", "pid", n.Pid, "syscall", n.Nr, "verdict", v.String(), "err", v.why)
	}
	return v
}

// errnoOf is the errno that a program gets for err.
func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		return e
	}
	return unix.ENETDOWN
}
