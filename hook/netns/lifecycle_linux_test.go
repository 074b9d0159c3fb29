package netns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/hook/hooktest"
	"golang.org/x/sys/unix"
)

func TestCloseEndsEverything(t *testing.T) {
	start(t, pod4) // skips; and everything that is made once has been made
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	path := filepath.Join(shortDir(t), "s")
	for range 3 {
		h, err := Start(t.Context(), testConfig(path, pod4, pod6))
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("socket file: %v, %v, want mode 0600", fi, err)
		}
		readErr := make(chan error, 1)
		go func() {
			buf := make([]byte, 65536)
			for {
				if _, err := h.Read([][]byte{buf}, []int{0}, 0); err != nil {
					readErr <- err
					return
				}
			}
		}()
		if err := h.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-readErr; err != net.ErrClosed {
			t.Errorf("Read after Close: %v, want net.ErrClosed", err)
		}
		if _, err := h.Write([][]byte{make([]byte, 20)}, 0); err != net.ErrClosed {
			t.Errorf("Write after Close: %v, want net.ErrClosed", err)
		}
		if err := h.Close(); err != net.ErrClosed {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
		<-h.Done()
		if h.Err() != nil {
			t.Errorf("Err after Close: %v", h.Err())
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("socket file after Close: %v", err)
		}
	}
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	waitFor(t, fmt.Sprintf("no more than the %d descriptors that were open before", fds), func() bool { return openFDs(t) <= fds })
}

func openFDs(t *testing.T) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// patience is how long what takes milliseconds may take on a machine that is busy.
const patience = 30 * time.Second

// waitFor polls a state that nothing announces.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestHelperKilledAndReplaced(t *testing.T) {
	h, c := start(t, pod4)
	path := c.path
	if err := unix.Kill(h.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-h.Done()
	if h.Err() == nil {
		t.Error("Err of a killed helper is nil")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket file of a killed helper: %v", err)
	}
	if _, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("Socket without a helper: %v, want ENETDOWN", err)
	}
	again, err := Start(t.Context(), testConfig(path, pod4))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	fd, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatalf("Socket of the new helper: %v", err)
	}
	unix.Close(fd)
	// A connection that broke between two requests is replaced within one.
	unix.Shutdown(c.fd, unix.SHUT_RDWR)
	if fd, err = c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
		t.Fatalf("Socket over a broken connection: %v", err)
	}
	unix.Close(fd)
}

func TestStoppedHelperDoesNotHang(t *testing.T) {
	h, first := start(t, pod4)
	c := &Client{path: first.path, limit: 200 * time.Millisecond, fd: -1}
	defer c.Close()
	if err := unix.Kill(h.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "every thread to stop", func() bool { return stopped(t, h.Pid()) })
	_, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("got %v, want ENETDOWN", err)
	}
	if err := unix.Kill(h.Pid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.limit = patience // it has to wake up first
	fd, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatalf("after SIGCONT: %v", err)
	}
	defer unix.Close(fd)
	if typ, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); typ != unix.SOCK_DGRAM {
		t.Error("the late answer of the first request was taken")
	}
}

// stopped reports whether every thread of the process is.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	stats, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		// The name in parentheses may hold anything.
		if i := strings.LastIndex(string(b), ") "); i < 0 || b[i+2] != 'T' {
			return false
		}
	}
	return len(stats) > 0
}

// TestDaemonKilled checks that nothing is left of a session whose daemon had no
// chance to clean up.
func TestDaemonKilled(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	cmd := exec.Command(hooktest.Self, "__daemon", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
	if err != nil {
		hooktest.Unavailable(t, "netns", line)
	}
	// The descriptor keeps the pid from being taken by somebody else.
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	cmd.Process.Kill()
	waitFor(t, "the helper to end", func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		return err == nil && n == 1
	})
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket file: %v", err)
	}
}

func TestSocketPathInUse(t *testing.T) {
	_, c := start(t, pod4)
	if h, err := Start(t.Context(), testConfig(c.path, pod4)); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second helper at one path: %v, want EADDRINUSE", err)
		if err == nil {
			h.Close()
		}
	}
	if fd, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
		t.Errorf("first helper afterwards: %v", err)
	} else {
		unix.Close(fd)
	}
	file := filepath.Join(shortDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if h, err := Start(t.Context(), testConfig(file, pod4)); err == nil {
		h.Close()
		t.Error("started at the path of an ordinary file")
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the ordinary file: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	start(t, pod4)
	dir := shortDir(t)
	cfg := testConfig(filepath.Join(dir, "s"), pod4)
	cfg.Exe = []string{"/bin/false"}
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("helper that dies: %v", err)
	}
	cfg.Exe = []string{filepath.Join(dir, "absent")}
	if _, err := Start(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no executable: %v", err)
	}
}
