package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A swap puts another socket under the numbers that a program has for one: a host
// socket in the place of a session's, or back. It is needed where a socket turns
// out to be on the wrong side after socket(2): listeners on the laptop's loopback,
// and ::1. The program sees the same descriptor, options and epoll entries.

// replace gives the caller of n the socket fresh under every number that it has
// for the one with the inode ino.
func (s *supervisor) replace(n *notification, ino uint64, fresh int) error {
	pid := int(n.Pid)
	holders, epolls, err := descriptorsOf(pid, ino)
	if err != nil {
		return err
	}
	if len(holders) == 0 {
		return unix.EBADF // closed by another thread meanwhile
	}
	var entries []registration
	for _, e := range epolls {
		found, err := registrations(pid, e, ino)
		if err != nil {
			return err
		}
		entries = append(entries, found...)
	}
	// The old file may live on in another process, and its entries with it.
	errs := []error{s.registrar.do(job{op: unix.EPOLL_CTL_DEL, pid: pid, source: holders[0].fd, entries: entries})}
	done := holders[:0:0]
	for _, h := range holders {
		if err := s.put(n, fresh, h); err != nil {
			errs = append(errs, fmt.Errorf("replace descriptor %d: %w", h.fd, err))
			continue
		}
		done = append(done, h)
	}
	if len(done) == 0 { // nothing has changed: put them back
		errs = append(errs, s.registrar.do(job{op: unix.EPOLL_CTL_ADD, pid: pid, source: holders[0].fd, entries: entries}))
		return errors.Join(errs...)
	}
	errs = append(errs, s.registrar.do(job{op: unix.EPOLL_CTL_ADD, pid: pid, source: done[0].fd, entries: entries}))
	if err := errors.Join(errs...); err != nil {
		s.logger.Warn("a socket was replaced, but not all of it could be carried over", "pid", pid, "err", err)
	}
	return nil
}

// holder is a descriptor of a program.
type holder struct {
	fd          int
	closeOnExec bool
}

// descriptorsOf lists the descriptors that the thread has of the socket with the
// inode ino, and those that it has of epoll instances.
func descriptorsOf(pid int, ino uint64) (holders []holder, epolls []int, err error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, nil, err
	}
	socket := "socket:[" + strconv.FormatUint(ino, 10) + "]"
	var buf [64]byte
	for _, name := range names {
		m, err := unix.Readlinkat(int(dir.Fd()), name, buf[:])
		if err != nil {
			continue // closed meanwhile
		}
		link := string(buf[:m])
		if link != socket && link != "anon_inode:[eventpoll]" {
			continue
		}
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if link != socket {
			epolls = append(epolls, fd)
			continue
		}
		holders = append(holders, holder{fd: fd, closeOnExec: closesOnExec(pid, fd)})
	}
	slices.SortFunc(holders, func(a, b holder) int { return a.fd - b.fd })
	return holders, epolls, nil
}

// closesOnExec reports whether a descriptor has FD_CLOEXEC, which the flags of
// proc_pid_fdinfo(5) show.
func closesOnExec(pid, fd int) bool {
	info, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(info) {
		if rest, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 64)
			return err == nil && flags&unix.O_CLOEXEC != 0
		}
	}
	return false
}

// put makes h a descriptor of fresh.
func (s *supervisor) put(n *notification, fresh int, h holder) error {
	const setFD = 1 // SECCOMP_ADDFD_FLAG_SETFD
	add := addFD{ID: n.ID, Flags: setFD, SrcFD: uint32(fresh), NewFD: uint32(h.fd)}
	if h.closeOnExec {
		add.NewFDFlags = unix.O_CLOEXEC
	}
	for {
		// Interrupted means not done yet: this may be a thread that takes signals.
		if err := ioctl(s.listener, ioctlAddFD, unsafe.Pointer(&add)); err != unix.EINTR {
			return err
		}
	}
}
