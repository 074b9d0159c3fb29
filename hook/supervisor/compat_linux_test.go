package supervisor

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/borrownet/borrownet/hook/hooktest"
	"golang.org/x/sys/unix"
)

// TestOtherCallingConventions checks 32-bit and x32 system calls.
func TestOtherCallingConventions(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the program is for amd64")
	}
	s := newSession(t)
	prog := filepath.Join(t.TempDir(), "compat")
	cc, err := exec.LookPath("cc")
	if err != nil {
		hooktest.Unavailable(t, "cc", err)
	}
	build := exec.Command(cc, "-O1", "-nostdlib", "-static", "-no-pie", "-fno-stack-protector", "-o", prog, "-x", "c", "-")
	build.Stdin = bytes.NewReader(compatSource)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	native, err := exec.Command(prog).Output()
	if err != nil {
		hooktest.Unavailable(t, "ia32", err)
	}
	if v := int64(binary.LittleEndian.Uint64(native)); v < 0 {
		hooktest.Unavailable(t, "ia32", syscall.Errno(-v))
	}
	cmd := s.command(prog)
	out, err := cmd.Output()
	if err != nil || len(out) != 40 {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	for i, name := range []string{"socket", "socketcall"} {
		if got := strconv.FormatUint(binary.LittleEndian.Uint64(out[8*i:]), 10); got != s.cookie {
			t.Errorf("i386 %s: cookie %s, want %s", name, got, s.cookie)
		}
	}
	if got := int64(binary.LittleEndian.Uint64(out[16:])); got != -int64(unix.ENOSYS) {
		t.Errorf("x32 socket: %d, want -ENOSYS", got)
	}
	host := strconv.FormatUint(namespaceCookie(), 10)
	for i, name := range []string{"listen", "socketcall"} {
		if got := strconv.FormatUint(binary.LittleEndian.Uint64(out[24+8*i:]), 10); got != host {
			t.Errorf("i386 %s on 127.0.0.1: cookie %s, want the laptop's, %s", name, got, host)
		}
	}
}

// compatSource is read while the package directory still is: the tests may run
// as a user who cannot see it.
//
//go:embed testdata/compat.c
var compatSource []byte
