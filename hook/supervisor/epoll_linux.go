package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// registration is one entry of an epoll instance (epoll_ctl(2)).
type registration struct {
	epoll  int // the program's descriptor of the instance
	fd     int // the number that the entry is for
	events uint32
	data   uint64
}

// registrations returns what the epoll instance behind the thread's descriptor
// epoll watches of the file with the inode ino.
func registrations(pid, epoll int, ino uint64) ([]registration, error) {
	info, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/fdinfo/" + strconv.Itoa(epoll))
	if err != nil {
		return nil, err
	}
	return parseRegistrations(info, epoll, ino), nil
}

// parseRegistrations reads lines like (proc_pid_fdinfo(5))
//
//	tfd:        5 events:       1d data: ffffffffffffffff  pos:0 ino:61af sdev:7
func parseRegistrations(info []byte, epoll int, ino uint64) []registration {
	var out []registration
	for line := range bytes.Lines(info) {
		if !bytes.HasPrefix(line, []byte("tfd:")) {
			continue
		}
		f := map[string]string{}
		words := bytes.Fields(bytes.ReplaceAll(line, []byte(":"), []byte(": ")))
		for i := 0; i+1 < len(words); i += 2 {
			f[string(words[i])] = string(words[i+1])
		}
		of, err := strconv.ParseUint(f["ino:"], 16, 64)
		if err != nil || of != ino {
			continue
		}
		fd, err1 := strconv.Atoi(f["tfd:"])
		events, err2 := strconv.ParseUint(f["events:"], 16, 32)
		data, err3 := strconv.ParseUint(f["data:"], 16, 64)
		if errors.Join(err1, err2, err3) == nil {
			out = append(out, registration{epoll: epoll, fd: fd, events: uint32(events), data: data})
		}
	}
	return out
}

// registrar makes and removes epoll entries in the name of programs. An entry is keyed by an
// open file and the number it had in the table of who made it, so the file must
// have the program's number here too: on a thread with a descriptor table of its
// own, where every number is free.
//
// The thread exists from the first use on; few programs need it. The zero value is
// ready to use.
type registrar struct {
	once sync.Once
	work chan job      // nil before the first use
	done chan struct{} // closed when the thread has nothing of ours left
}

// job is: the file at the descriptor source of the thread pid gets these entries,
// or loses them.
type job struct {
	op          int // EPOLL_CTL_ADD or EPOLL_CTL_DEL
	pid, source int
	entries     []registration
	done        chan error
}

// close ends the thread. No do may follow.
func (r *registrar) close() {
	if r.work != nil {
		close(r.work)
		<-r.done
	}
}

// do makes the entries of j, or removes them.
func (r *registrar) do(j job) error {
	if len(j.entries) == 0 {
		return nil
	}
	r.once.Do(func() {
		r.work, r.done = make(chan job), make(chan struct{})
		go r.run() // ends at close
	})
	j.done = make(chan error, 1)
	r.work <- j
	return <-j.done
}

func (r *registrar) run() {
	defer close(r.done)
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	// The new table must have nothing of the old one: a copy of a pipe's end here
	// would keep others waiting for its close.
	err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_UNSHARE)
	if err != nil {
		err = os.NewSyscallError("close_range", err)
	}
	for j := range r.work {
		var errs []error
		for _, e := range j.entries {
			if err != nil {
				errs = append(errs, err)
				break
			}
			errs = append(errs, enroll(j, e))
		}
		j.done <- errors.Join(errs...)
	}
}

// enroll makes or removes one entry, on the thread with the empty table.
func enroll(j job, e registration) error {
	p, err := pidfd(j.pid)
	if err != nil {
		return err
	}
	defer closeMoved(&p)
	if p, err = above(p, e.fd); err != nil {
		return err
	}
	epoll, err := unix.PidfdGetfd(p, e.epoll, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	defer closeMoved(&epoll)
	if epoll, err = above(epoll, e.fd); err != nil {
		return err
	}
	file, err := unix.PidfdGetfd(p, j.source, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	defer closeMoved(&file)
	if file != e.fd {
		if err := unix.Dup3(file, e.fd, unix.O_CLOEXEC); err != nil {
			return os.NewSyscallError("dup3", err)
		}
		number := e.fd
		defer closeMoved(&number)
	}
	ev := unix.EpollEvent{Events: e.events, Fd: int32(e.data), Pad: int32(e.data >> 32)}
	err = unix.EpollCtl(epoll, j.op, e.fd, &ev)
	if err == unix.EEXIST || err == unix.ENOENT { // the instance was met under another of its numbers
		return nil
	}
	if err != nil {
		return fmt.Errorf("epoll entry of descriptor %d: %w", e.fd, os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// above moves fd out of the way of the number n. On failure fd stays as it is.
func above(fd, n int) (int, error) {
	if fd > n {
		return fd, nil
	}
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, n+1)
	if err != nil {
		return fd, os.NewSyscallError("fcntl", err)
	}
	unix.Close(fd)
	return moved, nil
}

// closeMoved closes what fd is by then: descriptors move while they are in use.
func closeMoved(fd *int) { unix.Close(*fd) }
