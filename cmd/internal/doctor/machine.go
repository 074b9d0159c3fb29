package doctor

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/hook"
)

// Machine is what there is to know of this machine.
type Machine struct {
	Root    fs.FS  // its file system
	Release string // of the kernel, as uname -r prints it
	// Device is the packet device of a session's namespace that was made to try,
	// and Namespace why there is none.
	Device    string
	Namespace error
	Listener  error // why programs cannot be supervised, or nil
	Library   error // why there is no preload library, or nil
	TUN       error // of opening /dev/net/tun, or nil
	RunDir    *rundir.Dir
	NoRunDir  error // why RunDir is nil
	// Kept reports whether a file in RunDir outlives a daemon rightly, Daemon
	// whether one lives.
	Kept   func(name string) bool
	Daemon bool
	// Engines are the sockets of container engines that answer.
	Engines []string
	// Foreign names a system that is not Linux: of the above only the directory counts.
	Foreign string
}

// Oldest and better kernels.
const (
	oldestMajor, oldestMinor = 5, 9  // SECCOMP_IOCTL_NOTIF_ADDFD
	betterMajor, betterMinor = 5, 19 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
)

// Check looks at the machine.
func (m *Machine) Check() []Check {
	if m.Foreign != "" {
		found := warn("system", m.Foreign+": programs cannot be wrapped, borrownet forward and its proxies serve them; nobody has tried it", "a Linux virtual machine, for programs and containers that are the pod")
		return append([]Check{found, m.runtimeDir()}, m.leftovers()...)
	}
	checks := []Check{m.kernel(), m.seccomp(), m.namespaces(), m.tun(), m.hook()}
	checks = append(checks, m.yama()...)
	checks = append(checks, m.container())
	checks = append(checks, m.engines()...)
	checks = append(checks, m.runtimeDir())
	return append(checks, m.leftovers()...)
}

func (m *Machine) kernel() Check {
	var major, minor int
	if n, _ := fmt.Sscanf(m.Release, "%d.%d", &major, &minor); n != 2 {
		return warn("kernel", "Linux "+m.Release+", of which nothing is known", "Linux 5.9 or newer is needed")
	}
	older := func(than, thanMinor int) bool { return major < than || major == than && minor < thanMinor }
	switch {
	case older(oldestMajor, oldestMinor):
		return m.unsupervised("kernel", "Linux "+m.Release+" is too old for programs to be supervised", "Linux 5.9 or newer is needed, 5.19 or newer is better")
	case older(betterMajor, betterMinor):
		return warn("kernel", "Linux "+m.Release+": a signal may make a program's socket call start again", "Linux 5.19 or newer")
	}
	return ok("kernel", "Linux "+m.Release)
}

func (m *Machine) seccomp() Check {
	if m.Listener == nil {
		return ok("seccomp", "programs can be supervised")
	}
	return m.unsupervised("seccomp", hook.Reason(m.Listener), hook.Hint(m.Listener))
}

// unsupervised is a reason why programs cannot be supervised: the preload library
// does it then.
func (m *Machine) unsupervised(name, found, hint string) Check {
	if m.Library == nil {
		return warn(name, found, hint)
	}
	return fail(name, fault.Hook, found, hint)
}

func (m *Machine) namespaces() Check {
	if m.Namespace == nil {
		return ok("namespaces", "a session gets a network namespace of its own")
	}
	return warn("namespaces", hook.Reason(m.Namespace), hook.Hint(m.Namespace))
}

func (m *Machine) tun() Check {
	switch {
	case m.TUN == nil:
		return ok("tun", "/dev/net/tun can be opened")
	case m.Namespace == nil && m.Device != "tun":
		return ok("tun", fmt.Sprintf("%v: a %s pair stands in", m.TUN, m.Device))
	case m.Namespace != nil:
		return ok("tun", fmt.Sprintf("%v: not needed without a namespace", m.TUN))
	}
	return warn("tun", m.TUN.Error(), "sudo modprobe tun && sudo chmod 0666 /dev/net/tun")
}

// hook says by which rung programs would enter a session.
func (m *Machine) hook() Check {
	rung, _, err := hook.Machine{Namespace: m.Namespace, Listener: m.Listener, Library: m.Library}.Best()
	switch {
	case err != nil:
		return fail("hook", fault.Hook, "no way for programs into a session", hook.Hint(err))
	case rung.Relayed():
		return warn("hook", string(rung)+": programs keep this machine's sockets, what leaves it is relayed", "see namespaces above")
	case rung == hook.Preload:
		return warn("hook", "preload, with "+m.Device+": a library in programs fetches their sockets; others run inside the namespace", "see seccomp above")
	}
	return ok("hook", string(rung)+", with "+m.Device)
}

// yama says whether a supervisor may read what its own programs name in calls.
func (m *Machine) yama() []Check {
	scope := m.setting("proc/sys/kernel/yama/ptrace_scope")
	switch scope {
	case "":
		return nil // the kernel has none
	case "0", "1":
		return []Check{ok("yama", "ptrace_scope "+scope+": programs can be read by who started them")}
	}
	return []Check{warn("yama", "ptrace_scope "+scope+": the addresses that programs connect to cannot be read, which relayed ones need",
		"sudo sysctl -w kernel.yama.ptrace_scope=1")}
}

func (m *Machine) container() Check {
	for path, engine := range map[string]string{".dockerenv": "Docker", "run/.containerenv": "Podman"} {
		if _, err := fs.Stat(m.Root, path); err == nil {
			return ok("container", "this is a container of "+engine)
		}
	}
	if strings.Contains(m.setting("proc/self/status"), "\nSeccomp:\t2") {
		return ok("container", "something has put a seccomp filter on this process, as container engines do")
	}
	return ok("container", "this is none")
}

func (m *Machine) engines() []Check {
	var checks []Check
	for _, socket := range m.Engines {
		checks = append(checks, ok("engine", socket+" answers; containers that it starts are not routed"))
	}
	return checks
}

func (m *Machine) runtimeDir() Check {
	if m.NoRunDir != nil {
		return failed("directory", m.NoRunDir)
	}
	return ok("directory", m.RunDir.String())
}

// leftovers are files of a daemon that was killed.
func (m *Machine) leftovers() []Check {
	if m.RunDir == nil || m.Daemon {
		return nil
	}
	paths, err := m.RunDir.Stale(m.Kept)
	if err != nil {
		return []Check{warn("leftovers", err.Error(), "")}
	}
	if len(paths) == 0 {
		return nil
	}
	return []Check{warn("leftovers", "of a daemon that was killed: "+strings.Join(paths, ", "), "the next borrownet up removes them")}
}

// setting is a file of /proc without its last newline, "" if it cannot be read.
func (m *Machine) setting(path string) string {
	b, err := fs.ReadFile(m.Root, path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
