package session

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

func keyFiles(t *testing.T, k *Keys) []string {
	t.Helper()
	paths, err := filepath.Glob(k.dir.Path("*" + keySuffix))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func take(t *testing.T, k *Keys, target string, ttl time.Duration) *Key {
	t.Helper()
	key, err := k.Take(target, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeys(t *testing.T) {
	k := NewKeys(newDir(t))
	first := take(t, k, "pod-a", time.Hour)
	if !first.Fresh() {
		t.Error("first key is not fresh")
	}
	second := take(t, k, "pod-a", time.Hour)
	if second.Private == first.Private {
		t.Error("two sessions of one pod share a key")
	}
	if other := take(t, k, "pod-b", time.Hour); other.Private == first.Private {
		t.Error("two pods share a key")
	}
	for _, path := range keyFiles(t, k) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || !IsKey(path) {
			t.Errorf("%s has mode %#o", path, info.Mode().Perm())
		}
	}
	first.Release()
	// Another daemon finds it again.
	again := take(t, NewKeys(k.dir), "pod-a", time.Hour)
	if again.Fresh() || again.Private != first.Private {
		t.Error("the released key was not found again")
	}
	if err := again.Forget(); err != nil {
		t.Fatal(err)
	}
	if err := again.Forget(); err != nil {
		t.Errorf("second Forget: %v", err)
	}
}

// The place in memory may go between two keys, with the last daemon before this one.
func TestKeyMakesItsPlace(t *testing.T) {
	k := NewKeys(newDir(t))
	key := take(t, k, "pod-a", time.Hour)
	if err := errors.Join(key.Forget(), os.Remove(k.dir.String()), key.Keep(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if files := keyFiles(t, k); len(files) != 1 {
		t.Errorf("key files %q, want one", files)
	}
}

func TestKeyThatCannotBeWrittenLeavesNothing(t *testing.T) {
	k := NewKeys(newDir(t))
	key := take(t, k, "pod-a", time.Hour)
	if err := key.Forget(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(k.dir.Path(key.name), 0o700); err != nil { // a rename onto it fails
		t.Fatal(err)
	}
	if err := key.Keep(time.Hour); err == nil {
		t.Fatal("no error")
	}
	entries, err := os.ReadDir(k.dir.String())
	if err != nil || len(entries) != 1 || entries[0].Name() != key.name {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestKeysExpire(t *testing.T) {
	k := NewKeys(newDir(t))
	old := take(t, k, "pod-a", -time.Second)
	k.Sweep()
	if len(keyFiles(t, k)) != 1 {
		t.Error("a key in use was swept")
	}
	old.Release()
	if fresh := take(t, k, "pod-a", time.Hour); !fresh.Fresh() || fresh.Private == old.Private {
		t.Error("an expired key was taken again")
	}
	take(t, k, "pod-b", -time.Second).Release()
	if err := os.WriteFile(k.dir.Path("broken"+keySuffix), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.Sweep()
	if left := keyFiles(t, k); len(left) != 1 {
		t.Errorf("left %q, want the one in use", left)
	}
}

func TestKeysAreBounded(t *testing.T) {
	k := NewKeys(newDir(t))
	for range maxSlots {
		take(t, k, "pod", time.Hour)
	}
	_, err := k.Take("pod", time.Hour)
	if err == nil || !strings.Contains(k.hint(err), "borrownet down") {
		t.Errorf("%v, hint %q", err, k.hint(err))
	}
}

// TestKeysAreInMemory: no key is on a disk, wherever the runtime directory is.
func TestKeysAreInMemory(t *testing.T) {
	dir := newDir(t)
	if rundir.InMemory(dir.String()) || !rundir.InMemory("/dev/shm") {
		t.Skip("needs a disk, and /dev/shm in memory")
	}
	k := NewKeys(dir)
	take(t, k, "pod-a", time.Hour)
	if files := keyFiles(t, k); len(files) != 1 || !rundir.InMemory(files[0]) {
		t.Errorf("%q, want one file in memory", files)
	}
	if entries, err := os.ReadDir(dir.String()); err != nil || len(entries) != 0 {
		t.Errorf("on the disk: %v, %v", entries, err)
	}
}

// TestKeysWithoutMemory: where no file can be in memory there is none. The daemon finds
// the agents that it has parked all the same.
func TestKeysWithoutMemory(t *testing.T) {
	t.Chdir(t.TempDir())
	k := NewKeys(&rundir.Dir{}) // as on a machine without a place in memory
	first := take(t, k, "pod-a", time.Hour)
	if other := take(t, k, "pod-a", time.Hour); !first.Fresh() || other.Private == first.Private {
		t.Error("two sessions of one pod share a key")
	}
	first.Release()
	again := take(t, k, "pod-a", time.Hour)
	if again.Fresh() || again.Private != first.Private {
		t.Error("the released key was not found again")
	}
	if err := errors.Join(again.Keep(-time.Second), again.Forget(), again.Keep(-time.Second)); err != nil {
		t.Fatal(err)
	}
	k.Sweep()
	if len(k.held) != 2 {
		t.Errorf("%d keys, want those in use", len(k.held))
	}
	again.Release()
	k.Sweep()
	if len(k.held) != 1 {
		t.Errorf("%d keys, want the one in use", len(k.held))
	}
	target := &kube.Target{Context: "c", UID: "u"}
	take(t, k, keyOwner(target), time.Hour).Release()
	if err := k.Drop(target); err != nil || len(k.held) != 1 {
		t.Errorf("%d keys after a drop, %v", len(k.held), err)
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 0 || len(k.Secrets()) != 0 {
		t.Errorf("files %v, %v", entries, err)
	}
}

// TestKeySecrets are what reports are searched for.
func TestKeySecrets(t *testing.T) {
	dir := newDir(t)
	key := take(t, NewKeys(dir), "pod-a", time.Hour)
	want := []string{base64.StdEncoding.EncodeToString(key.Private[:]), hex.EncodeToString(key.Private[:])}
	if got := NewKeys(dir).Secrets(); !slices.Equal(got, want) {
		t.Errorf("%d texts, want base64 and hex of the key", len(got))
	}
}

// TestAbandonedKeysAreSwept: a runtime directory that was on a disk may be gone with its
// daemon, killed, and nobody come for the keys: another daemon of the user does.
func TestAbandonedKeysAreSwept(t *testing.T) {
	gone, here := newDir(t), newDir(t)
	if rundir.InMemory(gone.String()) || !rundir.InMemory("/dev/shm") {
		t.Skip("needs a disk, and /dev/shm in memory")
	}
	left := NewKeys(gone)
	take(t, left, "expired", -2*rundir.Abandoned)
	take(t, left, "parked", time.Hour)
	if err := os.RemoveAll(gone.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Mkdir(gone.String(), 0o700) }) // for what tidies up
	other := NewKeys(here)
	other.Sweep()
	if files := keyFiles(t, left); len(files) != 1 || filepath.Base(files[0]) != keyName("parked", 0) {
		t.Errorf("left %q, want the key that a parked agent knows", files)
	}
	if err := os.Remove(left.dir.Path(keyName("parked", 0))); err != nil {
		t.Fatal(err)
	}
	other.Sweep()
	if _, err := os.Stat(left.dir.String()); err != nil {
		t.Errorf("a place that was in use just now: %v", err)
	}
	before := time.Now().Add(-2 * rundir.Abandoned)
	if err := os.Chtimes(left.dir.String(), before, before); err != nil {
		t.Fatal(err)
	}
	other.Sweep()
	if _, err := os.Stat(left.dir.String()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the abandoned place is still there: %v", err)
	}
}
