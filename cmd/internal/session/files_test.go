package session

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// content reads what a program sees in a volume's copy.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*", "*/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(path); err == nil && name[0] != '.' {
				out[name] = string(text)
			}
		}
	}
	return out
}

func TestVolumeReplace(t *testing.T) {
	v := &volume{path: t.TempDir()}
	var err error
	if v.dir, err = os.OpenRoot(v.path); err != nil {
		t.Fatal(err)
	}
	defer v.dir.Close()
	file := func(name, text string) wire.File { return wire.File{Name: name, Data: []byte(text)} }
	missing, err := v.replace([]wire.File{file("token", "one"), file("sub/ca.crt", "ca"), file("gone", "x")})
	if err != nil || missing != nil {
		t.Fatalf("%q, %v", missing, err)
	}
	if diff := cmp.Diff(map[string]string{"token": "one", "sub/ca.crt": "ca", "gone": "x"}, content(t, v.path)); diff != "" {
		t.Errorf("first (-want +got)\n%s", diff)
	}
	held, err := os.Open(filepath.Join(v.path, "token"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	hostile := []wire.File{
		file("../out", "evil"), file("/abs", "evil"), file("a/../../out", "evil"), file("..data", "evil"), file("x\x1b[2J", "evil"), file("", "evil"), file("sub/..data", "evil"),
	}
	missing, err = v.replace(append([]wire.File{file("token", "two"), file("new", "n")}, hostile...))
	if err != nil || len(missing) != len(hostile) {
		t.Errorf("%d refused, want %d: %q, %v", len(missing), len(hostile), missing, err)
	}
	if diff := cmp.Diff(map[string]string{"token": "two", "new": "n"}, content(t, v.path)); diff != "" {
		t.Errorf("second (-want +got)\n%s", diff)
	}
	entries, err := os.ReadDir(v.path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"..2", "..data", "new", "token"}; !slices.Equal(names, want) {
		t.Errorf("left %q, want %q", names, want)
	}
	info, err := os.Stat(filepath.Join(v.path, "token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(v.path), "out")); err == nil {
		t.Error("a file was written outside")
	}
}

// TestFiles copies the pod's volumes, follows them, and leaves nothing.
func TestFiles(t *testing.T) {
	t.Setenv("TMPDIR", "/dev/shm") // where runtime directories are in memory, as they are
	l := newLab(t)
	from := t.TempDir()
	// As the kubelet rotates a token: the files are those that one link leads to.
	rotate := func(text string) error {
		version := filepath.Join(from, "..of-"+text)
		return errors.Join(os.Mkdir(version, 0o700), os.WriteFile(filepath.Join(version, "token"), []byte(text), 0o600),
			os.Symlink("..of-"+text, filepath.Join(from, "..data_tmp")), os.Rename(filepath.Join(from, "..data_tmp"), filepath.Join(from, "..data")))
	}
	if err := errors.Join(rotate("old"), os.Symlink("..data/token", filepath.Join(from, "token"))); err != nil {
		t.Fatal(err)
	}
	l.cluster.volumes = dirs{"/run/borrownet.test/one": from}
	o := l.opening()
	o.target.Mounts = []kube.Mount{
		{Path: "/run/borrownet.test/one", Volume: "secret one"}, {Path: "/run/borrownet.test/two", Volume: "secret two"},
		{Path: "/etc/three", Volume: "configmap three"}, {Path: "/four", Volume: "configmap four", Why: "it is four"},
	}
	s, err := o.Start(t.Context(), "api", l.observer())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	status, place := s.Status(t.Context(), false), s.Place()
	for i, want := range []string{"", "no volume is mounted at /run/borrownet.test/two", "it would change this machine's /etc", "it is four"} {
		if got := status.Files[i].Why; (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s is missing because %q, want %q", status.Files[i].Path, got, want)
		}
	}
	if len(place.Files) != 1 || place.Files[0].Target != "/run/borrownet.test/one" {
		t.Fatalf("place %+v", place)
	}
	copied := filepath.Join(place.Files[0].Source, "token")
	if text, err := os.ReadFile(copied); err != nil || string(text) != "old" {
		t.Errorf("%q, %v", text, err)
	}
	if err := errors.Join(rotate("new"), os.RemoveAll(filepath.Join(from, "..of-old"))); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		text, err := os.ReadFile(copied)
		if err != nil {
			t.Fatal(err) // it is replaced, never gone
		}
		if string(text) == "new" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the change does not arrive")
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Dir(place.Scratch)); err != nil || len(left) != 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

// TestReadFile reads files of the pod once, also those that programs do not see, and
// says what else there is.
func TestReadFile(t *testing.T) {
	l := newLab(t)
	app, secret := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{app + "/conf/app.yaml": "mode: live", secret + "/token": "\x00\xff"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(secret, "device")); err != nil {
		t.Fatal(err)
	}
	l.cluster.volumes = dirs{"/etc/app": app, "/etc/app/secret": secret}
	o := l.opening()
	o.target.Mounts = []kube.Mount{
		{Path: "/etc/app", Volume: "configmap app"}, {Path: "/etc/app/secret", Volume: "secret app"}, {Path: "/four", Volume: "configmap four", Why: "it is four"},
	}
	s, err := o.Start(t.Context(), "api", l.observer())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, tt := range []struct{ name, want, reason, hint string }{
		{"/etc/app/conf/app.yaml", "mode: live", "", ""},
		{"/etc/app/conf/../secret/token", "\x00\xff", "", ""},
		{"/etc/app/other", "", "there is no such file", "conf/app.yaml"},
		{"/etc/app/secret/device", "", "the agent cannot read it: ", "exec"},
		{"/four/x", "", "it is four", "exec"},
		{"/etc/passwd", "", "it is in none of the volumes that the agent has: /etc/app /etc/app/secret", "kubectl -n "},
		{"/etc/app/../passwd", "", "none of the volumes", "kubectl -n "},
		{"etc/app/x", "", "not absolute", "/etc/app/x"},
	} {
		got, err := s.ReadFile(t.Context(), tt.name)
		if tt.reason == "" && (err != nil || string(got) != tt.want) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
		if f := fault.From(err); tt.reason != "" && (err == nil || f.Code != fault.Target || !strings.Contains(f.Reason, tt.reason) || !strings.Contains(f.Hint, tt.hint)) {
			t.Errorf("%s: %q, %+v; want %q, hint %q", tt.name, got, err, tt.reason, tt.hint)
		}
	}
}

// Nothing of it may be on a disk, wherever the runtime directory is.
func TestFilesAreInMemory(t *testing.T) {
	l := newLab(t)
	l.cluster.volumes = dirs{"/run/borrownet.test/one": t.TempDir()}
	o := l.opening()
	o.target.Mounts = []kube.Mount{{Path: "/run/borrownet.test/one", Volume: "secret one"}}
	s, err := o.Start(t.Context(), "api", l.observer())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := s.Place()
	if why := s.Status(t.Context(), false).Files[0].Why; why != "" || len(p.Files) != 1 || !rundir.InMemory(p.Files[0].Source) || !rundir.InMemory(p.Scratch) {
		t.Fatalf("place %+v, missing because %q", p, why)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.Scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copies are still there: %v", err)
	}
}
