// Package lab_test proves what every other test of the lab relies on: the laptop
// is shut in, and nothing outlives a lab.
//
// It needs root and what hack/lab-build.sh builds, and uses a cache of its own, so
// it leaves a lab that somebody has up alone.
package lab_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A lab runs the lab binary with its state in a directory of the test.
type lab struct {
	bin   string
	cache string
}

func newLab(t *testing.T) lab {
	t.Helper()
	need := func(ok bool, what string) {
		t.Helper()
		if ok {
			return
		}
		required := strings.Split(os.Getenv("BORROWNET_REQUIRE"), ",")
		if slices.Contains(required, "lab") || slices.Contains(required, "all") {
			t.Fatal("needs ", what)
		}
		t.Skip("needs ", what)
	}
	need(os.Geteuid() == 0, "root: makes namespaces, mounts and control groups")
	bin, err := filepath.EvalSymlinks("../../bin/lab")
	need(err == nil, "bin/lab: run hack/lab-build.sh")
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	return lab{bin: bin, cache: filepath.Join(cache, "borrownet-lab")}
}

func (l lab) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), l.bin, args...)
	cmd.Stderr = testWriter{t}
	return cmd
}

// output runs the lab binary, which has to succeed.
func (l lab) output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.command(t, args...).Output()
	if err != nil {
		t.Fatalf("lab %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// up starts the shared lab and takes it down with the test.
func (l lab) up(t *testing.T) {
	t.Helper()
	l.output(t, "up")
	t.Cleanup(func() {
		if out, err := exec.Command(l.bin, "down").CombinedOutput(); err != nil {
			t.Errorf("lab down: %v: %s", err, out)
		}
	})
}

// kubectl asks the cluster from the node.
func (l lab) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return l.output(t, append([]string{"node", "kubectl", "-n", "shop"}, args...)...)
}

// testWriter passes lines of a command to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}
