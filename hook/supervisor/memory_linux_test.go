package supervisor

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMemory: the file in /proc gives what process_vm_readv(2) and process_vm_writev(2) give.
func TestMemory(t *testing.T) {
	page := os.Getpagesize()
	area, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(area)
	if err := unix.Mprotect(area[2*page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	base := uintptr(unsafe.Pointer(&area[0]))
	at := func(offset, size int) unix.RemoteIovec {
		return unix.RemoteIovec{Base: base + uintptr(offset), Len: size}
	}
	hole := uintptr(1) // nothing is mapped there
	for _, tt := range []struct {
		name string
		iov  []unix.RemoteIovec
		size int
		want int   // bytes
		err  error // if that is 0
	}{
		{"one", []unix.RemoteIovec{at(10, 16)}, 16, 16, nil},
		{"across-pages", []unix.RemoteIovec{at(page-5, 10)}, 10, 10, nil},
		{"several", []unix.RemoteIovec{at(100, 3), at(2000, 0), at(page+7, 5)}, 8, 8, nil},
		{"more-room-than-data", []unix.RemoteIovec{at(100, 300)}, 8, 8, nil},
		{"a-hole", []unix.RemoteIovec{{Base: hole, Len: 4}}, 4, 0, unix.EFAULT},
		{"no-address", []unix.RemoteIovec{{Base: ^uintptr(0) - 8, Len: 4}}, 4, 0, unix.EFAULT},
	} {
		for name, how := range map[string]struct {
			read, write func(int, []unix.RemoteIovec, []byte) (int, error)
		}{"call": {readBuffers, writeBuffers}, "file": {readMemoryFile, writeMemoryFile}} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				clear(area[:2*page])
				data := []byte("0123456789abcdef")[:tt.size]
				if n, err := how.write(os.Getpid(), tt.iov, data); n != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("write: %d bytes, %v", n, err)
				}
				got := make([]byte, tt.size)
				if n, err := how.read(os.Getpid(), tt.iov, got); n != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("read: %d bytes, %v", n, err)
				}
				if string(got[:tt.want]) != string(data[:tt.want]) {
					t.Errorf("wrote %q, read %q", data, got)
				}
			})
		}
	}
	if n, err := readBuffers(os.Getpid(), []unix.RemoteIovec{at(50, 4), {Base: hole, Len: 4}}, make([]byte, 8)); n != 4 || err != nil {
		t.Errorf("up to a hole: %d bytes, %v", n, err)
	}
	// The file would change what the program itself may not.
	if err := unix.Mprotect(area[page:2*page], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	for _, iov := range []unix.RemoteIovec{at(page+10, 4), at(page-2, 4)} {
		for name, write := range map[string]func(int, []unix.RemoteIovec, []byte) (int, error){"call": writeBuffers, "file": writeMemoryFile} {
			n, err := write(os.Getpid(), []unix.RemoteIovec{iov}, []byte("1234"))
			if n > 2 || n == 0 && !errors.Is(err, unix.EFAULT) || area[page+10] != 0 || area[page] != 0 {
				t.Errorf("%s to what is read-only: %d bytes, %v", name, n, err)
			}
		}
	}
	runtime.KeepAlive(area)
}
