package session

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
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
	if _, err := k.Take("pod", time.Hour); err == nil {
		t.Error("no error")
	}
}
