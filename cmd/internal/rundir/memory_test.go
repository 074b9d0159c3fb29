package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// onDisk is a runtime directory that is on a disk.
func onDisk(t *testing.T) *Dir {
	t.Helper()
	base := tempDir(t)
	if InMemory(base) {
		t.Skipf("needs a disk: %s is in memory", base)
	}
	if !InMemory(memoryRoot) {
		t.Skipf("needs %s in memory", memoryRoot)
	}
	d, err := At(filepath.Join(base, "run"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d.memoryPath()) })
	return d
}

// What is secret is never on a disk, and goes with the runtime directory.
func TestMemory(t *testing.T) {
	d := onDisk(t)
	m, err := d.Memory()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(m.String())
	if err != nil {
		t.Fatal(err)
	}
	if !InMemory(m.String()) || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: in memory %v, mode %v", m, InMemory(m.String()), info.Mode())
	}
	if again, err := m.Memory(); err != nil || again != m {
		t.Errorf("the place in memory of what is in memory: %v, %v", again, err)
	}
	file, err := m.WriteTemp("x-*.env", []byte("SECRET=1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	kept, err := m.WriteTemp("x-*.key", nil)
	if err != nil {
		t.Fatal(err)
	}
	keep := func(name string) bool { return strings.HasSuffix(name, ".key") }
	if stale, err := d.Stale(keep); err != nil || len(stale) != 1 || stale[0] != file {
		t.Errorf("stale: %q, %v", stale, err)
	}
	if err := d.Sweep(keep); err != nil {
		t.Fatal(err)
	}
	d.Remove()
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what is kept: %v", err)
	}
	os.Remove(kept)
	if d, err = At(d.path); err != nil { // it was empty
		t.Fatal(err)
	}
	lock, err := d.Lock(t.Context(), DaemonLock)
	if err != nil {
		t.Fatal(err)
	}
	d.Remove()
	if _, err := os.Stat(m.String()); err != nil {
		t.Errorf("it is a daemon's, and was removed: %v", err)
	}
	lock.Release()
	d.Remove()
	if _, err := os.Stat(m.String()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if file, err = m.WriteTemp("x-*", nil); err != nil { // the last daemon went just now
		t.Errorf("a new file in it: %v", err)
	}
	os.Remove(file)
}

func TestMemoryIsRefused(t *testing.T) {
	refused := func(d *Dir, id, reason string) {
		t.Helper()
		_, err := d.Memory()
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.ID != id || !strings.Contains(f.Reason, reason) || !strings.Contains(f.Hint, "XDG_RUNTIME_DIR") && !strings.Contains(f.Hint, "rm ") {
			t.Errorf("%+v, want %s, %q", err, id, reason)
		}
	}
	d := onDisk(t)
	for _, memory := range []string{"", filepath.Dir(d.path), "/nonexistent"} {
		other := *d
		other.memory = memory
		refused(&other, "BN2005", "on a disk")
	}
	// Somebody else leads us to where they want us to write, or to remove.
	victim := filepath.Join(tempDir(t), "victim")
	if err := errors.Join(os.MkdirAll(victim, 0o700), os.WriteFile(filepath.Join(victim, "file"), nil, 0o600), os.Symlink(victim, d.memoryPath())); err != nil {
		t.Fatal(err)
	}
	refused(d, "BN2001", "not a directory")
	if err := d.Sweep(func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(victim, "file")); err != nil {
		t.Errorf("removed by way of a link: %v", err)
	}
}
