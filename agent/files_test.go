package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kubeletVolume makes a volume as the kubelet does: names are links that lead
// through one link to the version in force.
func kubeletVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(dir, "..1", "sub"), 0o755) },
		func() error { return os.WriteFile(filepath.Join(dir, "..1", "token"), []byte("one"), 0o644) },
		func() error { return os.WriteFile(filepath.Join(dir, "..1", "sub", "ca.crt"), []byte("ca"), 0o644) },
		func() error { return os.Symlink("..1", filepath.Join(dir, "..data")) },
		func() error { return os.Symlink("..data/token", filepath.Join(dir, "token")) },
		func() error { return os.Symlink("..data/sub", filepath.Join(dir, "sub")) },
		func() error { return os.Symlink("/etc/passwd", filepath.Join(dir, "outside")) },
		func() error { return os.Symlink("../../../../etc/passwd", filepath.Join(dir, "above")) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadVolume(t *testing.T) {
	dir := kubeletVolume(t)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	first, err := readVolume(root)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range first.Files {
		got[f.Name] = string(f.Data)
	}
	if diff := cmp.Diff(map[string]string{"token": "one", "sub/ca.crt": "ca"}, got); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
	if len(first.Skipped) != 2 || !strings.HasPrefix(first.Skipped[0], "above: ") || !strings.HasPrefix(first.Skipped[1], "outside: ") {
		t.Errorf("skipped %q: links must not lead out", first.Skipped)
	}
	again, err := readVolume(root)
	if err != nil || again.Version != first.Version {
		t.Errorf("version %s, then %s, %v", first.Version, again.Version, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "..1", "token"), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := readVolume(root); err != nil || changed.Version == first.Version {
		t.Errorf("a changed file has the same version %s, %v", changed.Version, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "huge"), make([]byte, maxVolumeBytes+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readVolume(root); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge volume: %v", err)
	}
}

// rotate replaces a volume's files as the kubelet's atomic writer does (kubernetes
// pkg/volume/util/atomic_writer.go): a directory of the next version, a link to it that is
// renamed over the one in force, and the version before goes.
func rotate(dir string, version int, files map[string]string) error {
	name := fmt.Sprintf("..2026_11_28.%d", version)
	if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
		return err
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	before, err := os.Readlink(filepath.Join(dir, inForce))
	if err == nil {
		defer os.RemoveAll(filepath.Join(dir, before))
	} else {
		for file := range files {
			if err := os.Symlink(filepath.Join(inForce, file), filepath.Join(dir, file)); err != nil {
				return err
			}
		}
	}
	temp := filepath.Join(dir, "..data_tmp")
	return errors.Join(os.Symlink(name, temp), os.Rename(temp, filepath.Join(dir, inForce)))
}

// TestReadWhole: what is read while the kubelet rotates a token, again and again, is of one
// version, with nothing missing.
func TestReadWhole(t *testing.T) {
	dir := t.TempDir()
	next := func(version int) error {
		files := map[string]string{}
		for i := range 20 {
			files[fmt.Sprintf("file-%d", i)] = strconv.Itoa(version)
		}
		return rotate(dir, version, files)
	}
	if err := next(0); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	const rotations = 50
	rotated := make(chan error, 1)
	go func() { // ends by itself
		for version := 1; version <= rotations; version++ {
			if err := next(version); err != nil {
				rotated <- err
				return
			}
		}
		rotated <- nil
	}()
	reads, over := 0, false
	for !over {
		select {
		case err := <-rotated:
			if err != nil {
				t.Fatal(err)
			}
			over = true // one more read, of what has stayed
		default:
		}
		got, err := readWhole(root)
		if errors.Is(err, errChanging) && !over {
			continue
		}
		if err != nil || len(got.Files) != 20 || len(got.Skipped) != 0 {
			t.Fatalf("%d files, skipped %q, %v", len(got.Files), got.Skipped, err)
		}
		for _, f := range got.Files {
			if string(f.Data) != string(got.Files[0].Data) {
				t.Fatalf("%s is of version %s, %s of %s", f.Name, f.Data, got.Files[0].Name, got.Files[0].Data)
			}
		}
		if over && string(got.Files[0].Data) != strconv.Itoa(rotations) {
			t.Errorf("the last version is %s, want %d", got.Files[0].Data, rotations)
		}
		reads++
	}
	t.Logf("%d reads, %d rotations", reads, rotations)
}

func TestVolumes(t *testing.T) {
	got, err := volumes(strings.NewReader(`21 1 0:20 / / rw - overlay overlay rw
22 21 0:21 / /proc rw - proc proc rw
23 21 0:22 / /dev rw - tmpfs tmpfs rw
24 23 0:23 / /dev/shm rw - tmpfs shm rw
25 21 8:1 /pods/x/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw
26 21 0:30 / /run/secrets/kubernetes.io/serviceaccount ro shared:1 - tmpfs tmpfs rw
27 21 8:1 /pods/x/volumes/config /with\040space ro - ext4 /dev/sda1 rw
29 21 0:40 /pods/x/volumes/other /config ro - overlay overlay rw
28 21 0:24 / /sys/fs/cgroup ro - cgroup2 cgroup rw
`))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/run/secrets/kubernetes.io/serviceaccount", "/with space", "/config"}; !slices.Equal(got, want) {
		t.Errorf("volumes %q, want %q", got, want)
	}
	if _, err := volumes(strings.NewReader("nonsense\n")); err == nil {
		t.Error("nonsense is no error")
	}
	for _, path := range []string{"/", "/etc", "/proc", "/proc/self", "relative", "/etc/hosts"} {
		if root, err := (Mounts{}).Open(path); err == nil {
			root.Close()
			t.Errorf("%s is opened", path)
		}
	}
}
