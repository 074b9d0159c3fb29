//go:build lab

package integration

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// planted is what Secrets of the lab's pods and of these tests say: it must be nowhere
// but in the environment of programs, in the pod's files, and where somebody has it written.
const planted = "planted-secret-4711"

// secrets are texts that leak if they are anywhere else: what was planted, and the
// beginning of every token of a ServiceAccount. The private keys of sessions are too.
var secrets = []string{planted, "eyJhbGciOi"}

// sessionKeys are the private keys of sessions, in the forms that keys are written in. Only
// the files that hold them may have them.
func sessionKeys(t *testing.T) []string {
	t.Helper()
	var keys []string
	for _, dir := range append(memoryDirs(t), runtimeDir()) {
		paths, err := filepath.Glob(filepath.Join(dir, "*.key"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // its agent has gone
			}
			var file struct {
				Private []byte `json:"private"`
			}
			if err := errors.Join(err, json.Unmarshal(text, &file)); err != nil || len(file.Private) != 32 {
				t.Fatalf("%s: %d bytes of a key, %v", path, len(file.Private), err)
			}
			keys = append(keys, base64.StdEncoding.EncodeToString(file.Private), hex.EncodeToString(file.Private))
		}
	}
	return keys
}

// noLeaks looks for secrets on the laptop while a session is up: in what borrownet
// prints, in the command lines of all processes and in files. Every scenario that uses up
// ends with it.
func noLeaks(t *testing.T) {
	t.Helper()
	places := map[string]string{}
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"explain"}, {"ls"}} {
		r := borrownet(t, args...) // no session is up any more after some scenarios
		places["borrownet "+strings.Join(args, " ")] = r.stdout + r.stderr
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		if text, err := os.ReadFile(path); err == nil {
			places[path] = string(text)
		}
	}
	for _, dir := range append(memoryDirs(t), runtimeDir(), os.Getenv("HOME"), os.TempDir()) {
		files(t, dir, places)
	}
	leaks(t, places)
}

// leaks fails the test if a secret is in one of the texts, by where they are.
func leaks(t *testing.T, places map[string]string) {
	t.Helper()
	all := append(sessionKeys(t), secrets...)
	for where, text := range places {
		if slices.ContainsFunc(all, func(secret string) bool { return strings.Contains(text, secret) }) {
			t.Errorf("a secret is in %s", where)
		}
	}
}

// memoryDirs are where borrownet keeps what must not be on a disk, if its runtime
// directory is on one.
func memoryDirs(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("/dev/shm/borrownet-*")
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// keepsSecrets reports whether path is what holds the pod's files or environment for
// programs and containers, or a session's key, which has more behind its name
// while it is written, and is in memory, as it must be.
func keepsSecrets(path string) bool {
	name := filepath.Base(path)
	if !strings.HasPrefix(name, "files-") && !strings.HasPrefix(name, "docker-") && !strings.Contains(name, ".key") ||
		filepath.Dir(path) != runtimeDir() && !strings.HasPrefix(path, "/dev/shm/borrownet-") {
		return false
	}
	const tmpfs = 0x01021994 // statfs(2)
	var st syscall.Statfs_t
	return syscall.Statfs(path, &st) == nil && st.Type == tmpfs
}

// files adds the content of the files below dir to places, but those of the tests
// themselves, of the checkout, which may be below it, and what keepsSecrets.
func files(t *testing.T, dir string, places map[string]string) {
	t.Helper()
	const maxSize = 1 << 20
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch name := filepath.Base(path); {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			return nil
		case err != nil:
			return err
		case d.IsDir() && (isSource(path) || strings.HasPrefix(name, "Test") || name == ".cache" || name == ".kube" || keepsSecrets(path)):
			return fs.SkipDir
		case !d.Type().IsRegular(), keepsSecrets(path):
			return nil
		}
		if info, err := d.Info(); err != nil || info.Size() > maxSize {
			return nil // gone, or a program
		}
		if text, err := os.ReadFile(path); err == nil {
			places[path] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// isSource reports whether dir is a checkout.
func isSource(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// noLeaksInPod looks for secrets in what the cluster keeps of a pod of shop, which is
// borrowed: its spec, its logs, the agent's among them, and events; and in a bundle for a
// report of a problem.
func noLeaksInPod(t *testing.T, pod string) {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "bundle.tar.gz")
	mustBorrownet(t, "gather", "-f", bundle)
	unpacked := command{argv: []string{"tar", "-xzOf", bundle}}.run(t)
	if unpacked.code != 0 || !strings.Contains(unpacked.stdout, pod) {
		t.Fatalf("the bundle does not speak of %s: %v", pod, unpacked)
	}
	if len(sessionKeys(t)) == 0 {
		t.Error("no session has a key: nothing is looked for")
	}
	leaks(t, map[string]string{
		"the bundle":             unpacked.stdout,
		"the pod " + pod:         kubectl(t, "-n", "shop", "get", "pod", pod, "-o", "json"), // kubectl writes no YAML of control characters
		"the logs of pod " + pod: kubectl(t, "-n", "shop", "logs", pod, "--all-containers"),
		"events":                 kubectl(t, "-n", "shop", "get", "events", "-o", "json"),
	})
}

// leftInCluster looks for secrets in what the cluster keeps after all scenarios.
func leftInCluster() []string {
	var found []string
	admin := []string{"--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "shop"}
	for _, args := range [][]string{
		{"get", "pods", "-o", "json"}, {"get", "events", "-o", "json"},
		{"logs", "-l", "app=api", "--all-containers", "--tail=-1", "--prefix"}, {"logs", "-l", "app=web", "--all-containers", "--tail=-1", "--prefix"},
	} {
		text, err := exec.Command("kubectl", append(admin, args...)...).Output()
		if err != nil {
			found = append(found, "kubectl "+strings.Join(args, " ")+": "+err.Error())
		}
		for _, secret := range secrets {
			if strings.Contains(string(text), secret) {
				found = append(found, "a secret is in kubectl "+strings.Join(args, " "))
			}
		}
	}
	return found
}
