package supervisor

import (
	"errors"
	"os"
	"strconv"

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

// isFiltered reports whether a seccomp filter may have refused the call. Docker's default one does so before version 23, although
// it lets a container trace its own processes, which is the right that the kernel asks for; and the file mem in /proc asks for the same.
func isFiltered(err error) bool { return err == unix.EPERM || err == unix.ENOSYS }

func readMemoryFile(pid int, from []unix.RemoteIovec, buf []byte) (int, error) {
	return eachBuffer(pid, unix.O_RDONLY, from, buf, unix.Pread)
}

func writeMemoryFile(pid int, to []unix.RemoteIovec, data []byte) (int, error) {
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
