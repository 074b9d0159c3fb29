package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLifeOfALab(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes control groups")
	}
	root := filepath.Join(t.TempDir(), "labs")
	l, err := Create(root, "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Find(root, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found a lab that is not ready: %v", err)
	}
	if _, err := Create(root, "a"); !errors.Is(err, ErrRunning) {
		t.Errorf("second lab of the same id: %v, want ErrRunning", err)
	}
	want := Record{Holder: 1, Node: 2, Laptop: 3, Started: time.Now().Round(0)}
	if err := l.Publish(want); err != nil {
		t.Fatal(err)
	}
	dir, got, err := Find(root, "a")
	if err != nil || dir != l.Dir || !got.Started.Equal(want.Started) || got.Laptop != want.Laptop {
		t.Errorf("found %s %+v, %v; want %s %+v", dir, got, err, l.Dir, want)
	}
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if ids, err := List(root); err != nil || len(ids) != 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
}

func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes control groups")
	}
	root := filepath.Join(t.TempDir(), "labs")
	dead, err := Create(root, "dead")
	if err != nil {
		t.Fatal(err)
	}
	alive, err := Create(root, "alive")
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // as the kernel does for a killed process
	if err := Sweep(root); err != nil {
		t.Fatal(err)
	}
	if ids, err := List(root); err != nil || len(ids) != 1 || ids[0] != "alive" {
		t.Errorf("left: %v, %v; want only the lab that is alive", ids, err)
	}
	if err := alive.Remove(); err != nil {
		t.Fatal(err)
	}
}
