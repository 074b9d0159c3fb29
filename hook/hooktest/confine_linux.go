package hooktest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// VerbConfine is the verb of ConfineMain.
const VerbConfine = "__hooktest-confine"

// confinedEnv tells tests that they run inside.
const confinedEnv = "BORROWNET_HOOKTEST_CONFINED"

// Confined reports whether this process was started by Confine.
func Confined() bool { return os.Getenv(confinedEnv) != "" }

// A Profile is what a filter denies.
type Profile string

// The profiles.
const (
	Docker Profile = "docker" // what Docker's default profile denies without capabilities
	Strict Profile = "strict" // besides: seccomp, ptrace and other processes' memory, as a sandbox does
)

// Confine runs the tests of this binary that match pattern once more as the user
// uid, as in a plain container: no capability, and a filter. Its TestMain must know
// VerbConfine. It skips the test where this process cannot become that user.
func Confine(t *testing.T, profile Profile, uid int, pattern string) {
	t.Helper()
	probe := exec.CommandContext(t.Context(), Self, VerbConfine, string(profile), strconv.Itoa(uid), "/bin/sh", "-c", "exit 0")
	if out, err := probe.CombinedOutput(); err != nil {
		Unavailable(t, "setuid", fmt.Sprintf("%v %s", err, bytes.TrimSpace(out)))
	}
	args := []string{VerbConfine, string(profile), strconv.Itoa(uid), Self, "-test.run=" + pattern, "-test.timeout=15m", "-test.v"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), Self, args...)
	cmd.Env = append(os.Environ(), confinedEnv+"="+string(profile), "HOME=/tmp", "XDG_RUNTIME_DIR=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: ") {
		t.Fatalf("nothing ran\n%s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "SKIP") || strings.Contains(line, "needs ") || strings.Contains(line, "cost:") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// ConfineMain executes a command as a user in a plain container. args are the
// profile, the user's number and the command.
func ConfineMain(args []string) int {
	uid, err := strconv.Atoi(args[1])
	if err == nil {
		err = Confinement{User: uid, Filter: Profile(args[0])}.Exec(args[2:])
	}
	fmt.Fprintln(os.Stderr, "confine:", err)
	return 1
}

// Confinement is what a process is left with.
type Confinement struct {
	User   int
	Keep   []int   // the capabilities that stay, in the bounding set and for root
	Filter Profile // "" = none
}

// Exec gives up the rest and executes the command. It returns only an error, and
// what was given up by then stays given up.
func (c Confinement) Exec(argv []string) error {
	runtime.LockOSThread()
	if err := c.dropBounding(); err != nil {
		return err
	}
	if c.User != os.Getuid() {
		if err := becomeUser(c.User); err != nil {
			return err
		}
	}
	if err := c.setCapabilities(); err != nil {
		return err
	}
	if c.Filter != "" {
		if err := installFilter(c.Filter); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: path, Err: unix.Exec(path, argv, os.Environ())}
}

// dropBounding leaves the bounding set to what is kept. Whoever may not change it
// has no capability to lose either.
func (c Confinement) dropBounding() error {
	for n := 0; n <= unix.CAP_LAST_CAP; n++ {
		if slices.Contains(c.Keep, n) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil && err != unix.EPERM && err != unix.EINVAL {
			return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
		}
	}
	return nil
}

func becomeUser(uid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(uid, uid, uid); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	return os.NewSyscallError("setresuid", syscall.Setresuid(uid, uid, uid))
}

// setCapabilities leaves root what is kept and other users nothing.
func (c Confinement) setCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if c.User == 0 {
		for _, n := range c.Keep {
			sets[n/32].Permitted |= 1 << (n % 32)
			sets[n/32].Effective |= 1 << (n % 32)
		}
	}
	return os.NewSyscallError("capset", unix.Capset(&hdr, &sets[0]))
}

func installFilter(profile Profile) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	prog := containerFilter(profile)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	return nil
}

// namespaceFlags are the CLONE_NEW* flags of clone(2) but CLONE_NEWTIME.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// denied are the calls that the default profile of Docker 28
// (moby/profiles/seccomp/default.json) refuses to a container without
// capabilities on a kernel from 4.8 on, where ptrace and process_vm_readv are
// allowed. Calls that no kernel has any more are left out.
func denied() []uint32 {
	return []uint32{
		unix.SYS_ACCT, unix.SYS_ADD_KEY, unix.SYS_BPF, unix.SYS_CHROOT, unix.SYS_CLOCK_SETTIME, unix.SYS_DELETE_MODULE,
		unix.SYS_FANOTIFY_INIT, unix.SYS_FINIT_MODULE, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSOPEN, unix.SYS_FSPICK,
		unix.SYS_INIT_MODULE, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_IO_URING_SETUP, unix.SYS_KCMP,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEYCTL, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_MBIND, unix.SYS_MOUNT, unix.SYS_MOUNT_SETATTR,
		unix.SYS_MOVE_MOUNT, unix.SYS_MOVE_PAGES, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_OPEN_TREE,
		unix.SYS_PERF_EVENT_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIVOT_ROOT, unix.SYS_PROCESS_MADVISE, unix.SYS_QUOTACTL,
		unix.SYS_QUOTACTL_FD, unix.SYS_REBOOT, unix.SYS_REQUEST_KEY, unix.SYS_SET_MEMPOLICY, unix.SYS_SETDOMAINNAME,
		unix.SYS_SETHOSTNAME, unix.SYS_SETNS, unix.SYS_SETTIMEOFDAY, unix.SYS_SWAPOFF, unix.SYS_SWAPON, unix.SYS_SYSLOG,
		unix.SYS_UMOUNT2, unix.SYS_UNSHARE, unix.SYS_USERFAULTFD, unix.SYS_VHANGUP,
	}
}

func containerFilter(profile Profile) []unix.SockFilter {
	const (
		load, jeq, jset, ret = 0x20, 0x15, 0x45, 0x06
		allow, refuse        = 0x7fff0000, 0x00050000
	)
	prog := []unix.SockFilter{{Code: load, K: 0}}
	refused := denied()
	if profile == Strict {
		refused = append(refused, unix.SYS_SECCOMP, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV)
	}
	for _, nr := range refused {
		prog = append(prog, unix.SockFilter{Code: jeq, Jf: 1, K: nr}, unix.SockFilter{Code: ret, K: refuse | uint32(unix.EPERM)})
	}
	return append(prog,
		unix.SockFilter{Code: jeq, Jf: 1, K: unix.SYS_CLONE3}, unix.SockFilter{Code: ret, K: refuse | uint32(unix.ENOSYS)},
		unix.SockFilter{Code: jeq, Jf: 3, K: unix.SYS_CLONE}, unix.SockFilter{Code: load, K: 16},
		unix.SockFilter{Code: jset, Jf: 1, K: namespaceFlags}, unix.SockFilter{Code: ret, K: refuse | uint32(unix.EPERM)},
		unix.SockFilter{Code: ret, K: allow})
}
