package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// viewVar makes this test binary the first process of a command.
const viewVar = "BORROWNET_TEST_VIEW"

func TestMain(m *testing.M) {
	text := os.Getenv(viewVar)
	if text == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	var v View
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		panic(err)
	}
	if err := v.Enter(); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(unix.Exec("/bin/sh", []string{"sh", "-c", os.Args[1]}, os.Environ()))
	os.Exit(2)
}

// users are whom the tests run as: this one, and an ordinary one if this is root.
func users(t *testing.T, f func(t *testing.T, uid int)) {
	t.Run("self", func(t *testing.T) { f(t, os.Getuid()) })
	if os.Getuid() == 0 {
		t.Run("user", func(t *testing.T) { f(t, 1001) })
	}
}

// in runs a script in v as a user and returns what it said.
func in(t *testing.T, uid int, v View, script string) (string, error) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "test")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(exe, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	open(t, filepath.Dir(exe))
	cmd := exec.Command(exe, script)
	cmd.Env = append(os.Environ(), viewVar+"="+string(text))
	cmd.Dir = "/"
	cmd.SysProcAttr = v.Attr()
	if uid != os.Getuid() {
		// As a person's process would start it: without a capability.
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.Credential = nil
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getgid(), Size: 1}}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), NoSetGroups: true}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("needs user namespaces: %v", err)
	}
	return string(out), err
}

// open lets everybody through to dir.
func open(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func source(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestEnter(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		one, two := source(t, "one"), source(t, "two")
		v := View{Scratch: t.TempDir(), Hostname: "api-1", Binds: []Bind{
			{one, "/var/run/secrets/borrownet.test/a"}, {two, "/run/secrets/borrownet.test/b"}, {two, "/borrownet.test/config"},
		}}
		open(t, v.Scratch)
		for _, tt := range []struct{ script, want string }{
			{"cat /var/run/secrets/borrownet.test/a/token", "one"},
			{"cat /run/secrets/borrownet.test/b/token", "two"},
			{"cat /borrownet.test/config/token", "two"},
			{"hostname 2>/dev/null || cat /proc/sys/kernel/hostname", "api-1\n"},
			{"echo x >/borrownet.test/config/token", "Read-only file system"},
			{"echo x >/run/borrownet.test", "Read-only file system"},
			{"test -e /etc/passwd && test -d /proc/self && test -c /dev/null && test -w /tmp && echo all there", "all there"},
			{"grep CapEff /proc/self/status", map[bool]string{true: "CapEff", false: "CapEff:\t0000000000000000"}[uid == 0]},
			{"id -u", fmt.Sprint(uid)},
			{"pwd", "/\n"},
		} {
			out, err := in(t, uid, v, tt.script)
			if !strings.Contains(out, tt.want) {
				t.Errorf("%s: %v, %q, want %q", tt.script, err, out, tt.want)
			}
		}
		for _, path := range []string{"/run/secrets/borrownet.test", "/borrownet.test"} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s is on the machine", path)
			}
		}
		if name, err := os.Hostname(); err != nil || name == "api-1" {
			t.Errorf("the machine is called %s, %v", name, err)
		}
	})
}

// What changes in the source shows, as a rotation of the kubelet does.
func TestEnterIsLive(t *testing.T) {
	dir := source(t, "old")
	v := View{Scratch: t.TempDir(), Binds: []Bind{{dir, "/run/borrownet.test/live"}}}
	open(t, v.Scratch)
	begun := filepath.Join(t.TempDir(), "begun")
	script := `cat /run/borrownet.test/live/token; : >` + begun + `; until test "$(cat /run/borrownet.test/live/token)" = new; do sleep 0.01; done; echo " then new"`
	done := make(chan error)
	go func() { // ends once the script has begun, or with the test
		done <- func() error {
			for {
				if _, err := os.Stat(begun); err == nil {
					break
				}
				select {
				case <-t.Context().Done():
					return t.Context().Err()
				case <-time.After(time.Millisecond):
				}
			}
			next := filepath.Join(dir, "next")
			if err := os.WriteFile(next, []byte("new"), 0o644); err != nil {
				return err
			}
			return os.Rename(next, filepath.Join(dir, "token"))
		}()
	}()
	out, err := in(t, os.Getuid(), v, script)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err != nil || !strings.Contains(out, "then new") || !strings.HasPrefix(out, "old") {
		t.Errorf("%v, %q", err, out)
	}
}

func TestRefuses(t *testing.T) {
	for target, want := range map[string]string{
		"/var/run/secrets/kubernetes.io/serviceaccount": "",
		"/config":        "",
		"/etc/app":       "/etc",
		"/usr":           "/usr",
		"/home":          "/home",
		"/home/x":        "/home",
		"/lib/x":         "/lib",
		"/lib64":         "/lib64",
		"/bin":           "/bin",
		"/sbin/x":        "/sbin",
		"/root/.ssh":     "/root",
		"/tmp/x":         "/tmp",
		"/":              "whole",
		"relative":       "absolute",
		"/run/../etc":    "absolute",
		"/run/x\x1b[2J":  "absolute",
		"/run/x\ny":      "absolute",
		"/etcetera/file": "",
		"/etc":           "hide this machine's /etc",
		"/proc/asked":    "hide this machine's /proc",
		"/etc/asked":     "",
		"/etc/asked/not": "--pod-mount /etc/asked/not",
	} {
		if got := Refuses(target, []string{"/etc/asked", "/proc/asked", "/etc", "/"}); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}

func TestEnterFails(t *testing.T) {
	file := filepath.Join(source(t, "x"), "token")
	v := View{Scratch: t.TempDir(), Binds: []Bind{{source(t, "y"), filepath.Join(file, "below")}}}
	out, err := in(t, os.Getuid(), v, "echo executed")
	if err == nil || !strings.Contains(out, "error: show ") || !strings.Contains(out, "not a directory") {
		t.Errorf("%v, %q", err, out)
	}
}

// TestOwn: configuration of somebody else who is not in the namespace belongs to the user,
// as ssh wants it; what may not be read, pipes and what is missing are no trouble.
func TestOwn(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	for name, mode := range map[string]os.FileMode{"50-site.conf": 0o644, "secret.conf": 0o600} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("Host x\n"), mode); err != nil {
			t.Fatal(err)
		}
		err := os.Chown(path, 4242, 4242)
		if errors.Is(err, fs.ErrPermission) {
			t.Skip("may not give files to somebody else: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "50-site.conf"), filepath.Join(dir, "60-link.conf")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	v := View{Scratch: t.TempDir(), Binds: []Bind{{source(t, "one"), "/borrownet.test/config"}}, Own: []string{"/missing", dir}}
	open(t, v.Scratch)
	out, err := in(t, 1001, v, "cd "+dir+" && stat -c '%n %u %a %F' * && cat 50-site.conf; echo x > 50-site.conf")
	want := "50-site.conf 1001 644 regular file\n60-link.conf 1001 644 regular file\nHost x\n"
	if !strings.HasPrefix(out, want) || !strings.Contains(out, "Read-only") {
		t.Errorf("%v, %q, want %q and no way to write", err, out, want)
	}
	v.Own = nil // the control
	if out, err := in(t, 1001, v, "stat -c %u "+filepath.Join(dir, "50-site.conf")); strings.TrimSpace(out) != "65534" {
		t.Errorf("without: %v, %q", err, out)
	}
}
