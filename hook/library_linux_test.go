package hook

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/hook/hooktest"
)

func TestInstall(t *testing.T) {
	if err := Built(); err != nil {
		hooktest.Unavailable(t, "preload", err)
	}
	base := t.TempDir()
	spaced, good := filepath.Join(base, "a b"), filepath.Join(base, "run")
	in, err := Install(spaced, good)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{in.Library, in.Enter} {
		if fi, err := os.Stat(path); err != nil || !strings.HasPrefix(path, good) || fi.Mode().Perm() != 0o555 {
			t.Errorf("%s: %v, %v", path, fi, err)
		}
	}
	before, err := os.Stat(in.Library)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Install(good)
	if err != nil || again != in {
		t.Fatalf("again: %v, %v", again, err)
	}
	if after, err := os.Stat(in.Library); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that is there was written again: %v", err)
	}
	// One that was tampered with is replaced, one that others may write to refused.
	os.Chmod(in.Enter, 0o755)
	if err := os.WriteFile(in.Enter, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(good); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(in.Enter); err != nil || len(b) < 2 {
		t.Errorf("still %q, %v", b, err)
	}
	if err := os.Chmod(filepath.Dir(in.Library), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(good); err == nil || !strings.Contains(err.Error(), "alone") {
		t.Errorf("a directory of everybody: %v", err)
	}
}

// TestVisible compares what Go and the library say of programs and scripts.
func TestVisible(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	source := filepath.Join(dir, "program.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	script := func(name, line string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(line+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		hooktest.Unavailable(t, "sh", err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for path, want := range map[string]string{
		program:                          program,
		shell:                            "",
		script("s1", "#!"+program+" -x"): program,
		script("s2", "#! "+shell):        "",
		script("s3", "#!/usr/bin/env -S program"):   program,
		script("s4", "#!"+filepath.Join(dir, "s1")): program,
		script("s5", "echo hello"):                  "",
		script("s6", "#!"+filepath.Join(dir, "s6")): "",
		filepath.Join(dir, "none"):                  "",
	} {
		err := Visible(path)
		var blind *BlindError
		if errors.As(err, &blind); (blind == nil) != (want == "") || blind != nil && blind.Path != want {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}
