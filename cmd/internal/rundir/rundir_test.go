package rundir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// tempDir is short: paths of sockets are bounded.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestAt(t *testing.T) {
	base := tempDir(t)
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink(base, link); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"new", filepath.Join(base, "new"), ""},
		{"file", file, "not a directory"},
		{"open_to_others", open, "mode is 0755, must be 0700"},
		{"symlink", link, "not a directory"},
		{"no_parent", filepath.Join(base, "none", "dir"), "no such file or directory"},
		{"too_long", filepath.Join(base, strings.Repeat("x", 90)), "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := At(tt.path)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Code != fault.Laptop || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOpenFallsBack(t *testing.T) {
	base := tempDir(t)
	t.Setenv("TMPDIR", base)
	for _, xdg := range []string{"", "relative", filepath.Join(base, "none")} {
		t.Setenv("XDG_RUNTIME_DIR", xdg)
		d, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(d.String()) != base {
			t.Errorf("XDG_RUNTIME_DIR=%q: got %s", xdg, d)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", base)
	d, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(base, "borrownet"); d.String() != want {
		t.Errorf("got %s, want %s", d, want)
	}
}

func TestSweep(t *testing.T) {
	d, err := At(filepath.Join(tempDir(t), "run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"daemon.sock", "key-1", "start.lock", "daemon.log"} {
		if err := os.WriteFile(d.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(d.Path("shell-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Sweep(func(name string) bool { return strings.HasPrefix(name, "key-") }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(d.String())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "key-1 start.lock"; got != want {
		t.Errorf("left %q, want %q", got, want)
	}
}

func TestLockExcludes(t *testing.T) {
	d, err := At(filepath.Join(tempDir(t), "run"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.TryLock(StartLock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.TryLock(StartLock); !errors.Is(err, ErrLocked) {
		t.Errorf("second holder: got %v, want ErrLocked", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Lock(ctx, StartLock); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: got %v, want DeadlineExceeded", err)
	}
	l.Release()
	if l, err = d.Lock(t.Context(), StartLock); err != nil {
		t.Fatal(err)
	}
	l.Release()
	d.Remove()
	if _, err := os.Lstat(d.String()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory is still there: %v", err)
	}
	// The directory is gone, as after a daemon's end: a lock brings it back.
	if l, err = d.TryLock(StartLock); err != nil {
		t.Fatal(err)
	}
	l.Release()
}

func TestLockRemovedByHolder(t *testing.T) {
	d, err := At(filepath.Join(tempDir(t), "run"))
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg     sync.WaitGroup
		inside sync.Mutex
	)
	for range 8 {
		wg.Go(func() {
			for range 20 {
				l, err := d.Lock(t.Context(), StartLock)
				if err != nil {
					t.Error(err)
					return
				}
				if !inside.TryLock() {
					t.Error("two holders at once")
				} else {
					inside.Unlock()
				}
				l.Release()
			}
		})
	}
	wg.Wait()
}
