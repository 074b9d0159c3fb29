package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readMemory reads at most len(buf) bytes of the thread pid from addr.
func readMemory(pid int, addr uint64, buf []byte) (int, error) {
	return readBuffers(pid, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}, buf)
}

// readBuffers fills buf from the buffers of the thread pid, as far as they go.
func readBuffers(pid int, from []unix.RemoteIovec, buf []byte) (int, error) {
	n, err := unix.ProcessVMReadv(pid, localIovec(buf), from, 0)
	switch {
	case isFiltered(err):
		return readMemoryFile(pid, from, buf)
	case err != nil:
		return 0, os.NewSyscallError("process_vm_readv", err)
	}
	return n, nil
}

// writeBuffers copies data into the buffers of the thread pid, as far as they go.
func writeBuffers(pid int, to []unix.RemoteIovec, data []byte) (int, error) {
	n, err := unix.ProcessVMWritev(pid, localIovec(data), to, 0)
	switch {
	case isFiltered(err):
		return writeMemoryFile(pid, to, data)
	case err != nil:
		return 0, os.NewSyscallError("process_vm_writev", err)
	}
	return n, nil
}

func localIovec(buf []byte) []unix.Iovec {
	local := unix.Iovec{Base: &buf[0]}
	local.SetLen(len(buf))
	return []unix.Iovec{local}
}

// isFiltered reports whether a seccomp filter may have refused the call. That of Docker 20.10 does so, although it lets a
// container trace its own processes, which is the right that the kernel asks for, and asks for with the file mem in /proc.
func isFiltered(err error) bool { return err == unix.EPERM || err == unix.ENOSYS }

func readMemoryFile(pid int, from []unix.RemoteIovec, buf []byte) (int, error) {
	return eachBuffer(pid, unix.O_RDONLY, from, buf, unix.Pread)
}

// writeMemoryFile writes only where the thread itself may: the kernel has the file heed no protection.
func writeMemoryFile(pid int, to []unix.RemoteIovec, data []byte) (int, error) {
	if err := mayWrite(pid, to); err != nil {
		return 0, err
	}
	return eachBuffer(pid, unix.O_WRONLY, to, data, unix.Pwrite)
}

// eachBuffer copies between buf and one of the thread's buffers after the other. An address that is not mapped is EFAULT, unless
// something was copied before.
func eachBuffer(pid, flags int, iov []unix.RemoteIovec, buf []byte, transfer func(int, []byte, int64) (int, error)) (int, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/mem"
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	done := 0
	for _, b := range iov {
		want := min(b.Len, len(buf)-done)
		for at := int64(b.Base); want > 0; {
			n, err := transfer(fd, buf[done:done+want], at)
			switch {
			case err == unix.EINTR:
				continue
			case n <= 0 && done > 0:
				return done, nil
			case n <= 0 && (err == nil || errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL)):
				return 0, &os.PathError{Op: "copy", Path: path, Err: unix.EFAULT}
			case n <= 0:
				return 0, &os.PathError{Op: "copy", Path: path, Err: err}
			}
			done, at, want = done+n, at+int64(n), want-n
		}
	}
	return done, nil
}

// mayWrite returns EFAULT unless all buffers are in memory that the thread pid may write to, by proc_pid_maps(5).
func mayWrite(pid int, buffers []unix.RemoteIovec) error {
	path := "/proc/" + strconv.Itoa(pid) + "/maps"
	maps, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	type span struct{ start, end uint64 }
	var spans []span
	for line := range strings.Lines(string(maps)) { // in the order of addresses
		var s span
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &s.start, &s.end, &mode); err != nil {
			return &os.PathError{Op: "parse", Path: path, Err: err}
		}
		switch last := len(spans) - 1; {
		case !strings.HasPrefix(mode, "rw"):
		case last >= 0 && spans[last].end == s.start:
			spans[last].end = s.end
		default:
			spans = append(spans, s)
		}
	}
	for _, b := range buffers {
		start, end := uint64(b.Base), uint64(b.Base)+uint64(b.Len)
		if b.Len > 0 && !slices.ContainsFunc(spans, func(s span) bool { return s.start <= start && start < end && end <= s.end }) {
			return &os.PathError{Op: "write", Path: path, Err: unix.EFAULT}
		}
	}
	return nil
}
