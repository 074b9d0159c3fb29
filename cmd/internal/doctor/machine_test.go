package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
)

// machine is one on which all is well.
func machine(t *testing.T) *Machine {
	t.Helper()
	base, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir, err := rundir.At(filepath.Join(base, "run"))
	if err != nil {
		t.Fatal(err)
	}
	return &Machine{Root: fstest.MapFS{}, Release: "6.8.0-45-generic", Device: "tun", RunDir: dir, Kept: func(name string) bool { return name == "kept" }}
}

func setting(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestMachine(t *testing.T) {
	apparmor := &netns.UnsupportedError{Reason: "AppArmor blocks unprivileged user namespaces for borrownet", Hint: "write this profile", Err: syscall.EPERM}
	nested := &supervisor.UnsupportedError{Reason: "another tool already supervises this process tree", Hint: "leave it", Err: syscall.EBUSY}
	for _, tt := range []struct {
		name  string
		alter func(m *Machine)
		check string
		state State
		found string
		hint  string
		code  fault.Code
	}{
		{"all-is-well", func(*Machine) {}, "hook", OK, "seccomp, with tun", "", 0},
		{"old-kernel", func(m *Machine) { m.Release = "5.4.0" }, "kernel", Warn, "too old", "5.9 or newer", 0},
		{"older-kernel-no-library", func(m *Machine) { m.Release, m.Library = "4.19.0", hook.ErrNotBuilt }, "kernel", Fail, "too old", "5.9 or newer", fault.Hook},
		{"middling-kernel", func(m *Machine) { m.Release = "5.15.0-1-generic" }, "kernel", Warn, "start again", "5.19", 0},
		{"odd-kernel", func(m *Machine) { m.Release = "odd" }, "kernel", Warn, "nothing is known", "5.9", 0},
		{"no-namespace", func(m *Machine) { m.Namespace, m.Device = apparmor, "" }, "namespaces", Warn, "AppArmor blocks", "write this profile", 0},
		{"no-namespace-relays", func(m *Machine) { m.Namespace, m.Device = apparmor, "" }, "hook", Warn, "relay: ", "see namespaces", 0},
		{"no-listener", func(m *Machine) { m.Listener = nested }, "seccomp", Warn, "another tool", "leave it", 0},
		{"no-listener-preloads", func(m *Machine) { m.Listener = nested }, "hook", Warn, "preload, with tun", "see seccomp", 0},
		{"neither-relays", func(m *Machine) { m.Listener, m.Namespace = nested, apparmor }, "hook", Warn, "preload-relay: ", "see namespaces", 0},
		{"no-listener-no-library", func(m *Machine) { m.Listener, m.Library = nested, hook.ErrNotBuilt }, "hook", Fail, "no way", "make build", fault.Hook},
		{"veth", func(m *Machine) { m.TUN, m.Device = errors.New("permission denied"), "veth" }, "tun", OK, "a veth pair stands in", "", 0},
		{"not-linux", func(m *Machine) { m.Foreign = "darwin" }, "system", Warn, "darwin: programs cannot be wrapped", "virtual machine", 0},
		{"yama", func(m *Machine) {
			m.Root = fstest.MapFS{"proc/sys/kernel/yama/ptrace_scope": setting("2\n")}
		}, "yama", Warn, "ptrace_scope 2", "kernel.yama.ptrace_scope=1", 0},
		{"yama-usual", func(m *Machine) {
			m.Root = fstest.MapFS{"proc/sys/kernel/yama/ptrace_scope": setting("1\n")}
		}, "yama", OK, "ptrace_scope 1", "", 0},
		{"docker", func(m *Machine) { m.Root = fstest.MapFS{".dockerenv": setting("")} }, "container", OK, "Docker", "", 0},
		{"filtered", func(m *Machine) {
			m.Root = fstest.MapFS{"proc/self/status": setting("Name:\tx\nSeccomp:\t2\n")}
		}, "container", OK, "seccomp filter", "", 0},
		{"engine", func(m *Machine) { m.Engines = []string{"/var/run/docker.sock"} }, "engine", OK, "/var/run/docker.sock answers", "", 0},
		{"no-directory", func(m *Machine) {
			m.RunDir, m.NoRunDir = nil, &fault.Error{Code: fault.Laptop, Op: "use", Reason: "mode is 0755", Hint: "chmod 700 it"}
		}, "directory", Fail, "mode is 0755", "chmod 700 it", fault.Laptop},
		{"leftovers", func(m *Machine) { leave(m, "session-1.sock", "daemon.lock", "kept") }, "leftovers", Warn, "/session-1.sock", "borrownet up", 0},
		{"leftovers-of-the-living", func(m *Machine) { leave(m, "session-1.sock"); m.Daemon = true }, "directory", OK, "run", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine(t)
			tt.alter(m)
			checks := m.Check()
			found := false
			for _, c := range checks {
				if c.Name != tt.check {
					if tt.name == "leftovers-of-the-living" && c.Name == "leftovers" {
						t.Errorf("got %+v", c)
					}
					continue
				}
				found = true
				if c.State != tt.state || !strings.Contains(c.Found, tt.found) || !strings.Contains(c.Hint, tt.hint) || c.Code != tt.code {
					t.Errorf("got %+v", c)
				}
			}
			if !found {
				t.Errorf("no check %s in %+v", tt.check, checks)
			}
			if got := Verdict(checks); got != tt.code {
				t.Errorf("verdict %d, want %d", got, tt.code)
			}
		})
	}
}

func leave(m *Machine, names ...string) {
	for _, name := range names {
		if err := os.WriteFile(m.RunDir.Path(name), nil, 0o600); err != nil {
			panic(err)
		}
	}
}
