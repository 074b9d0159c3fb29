// Package node runs the machine of the lab: process 1 with its own mounts and
// control groups, the network, the Kubernetes components and the laptop beside
// it. Everything it makes is private to its namespaces and ends with process 1.
package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
	"github.com/borrownet/borrownet/integration/lab/internal/mounts"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// Verbs of the lab binary's stages that are a node.
const (
	InitVerb = "__init" // process 1
	NodeVerb = "__node" // starts the components
)

// ReportFD is the descriptor that the stages report their progress on.
const ReportFD = 3

// hostSysctls are values that the kubelet insists on. They belong to the whole
// machine, so the lab shows it files of its own in their place.
var hostSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// Init is process 1: it prepares the mounts, starts argv, and reaps until that
// has ended. It must be called on the main thread of a process in new mount,
// pid, network, uts and ipc namespaces.
func Init(s spec.Spec, argv []string) (code int, err error) {
	// The namespaces belong to the thread, and so does what is forked from it.
	runtime.LockOSThread()
	if err := prepare(s); err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, ReportFD},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", argv[1], err)
	}
	// The child has it now, and its end must be seen as the end of the pipe.
	if err := unix.Close(ReportFD); err != nil {
		return 0, os.NewSyscallError("close", err)
	}
	return reap(pid)
}

// reap waits for every child, as process 1 must, until pid has ended.
func reap(pid int) (code int, err error) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case got == pid:
			return ws.ExitStatus(), nil
		}
	}
}

func prepare(s spec.Spec) error {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := cgroup.Join(s.Cgroup); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := mounts.Private(); err != nil {
		return err
	}
	if s.Joins {
		// What the first machine has mounted for itself and its pods.
		for _, d := range append([]string{"run"}, ownDirs...) {
			if err := mounts.Drop("/" + d); err != nil {
				return err
			}
		}
	}
	if err := mounts.Shared(); err != nil {
		return err
	}
	if err := mounts.Fresh("proc", "/proc", ""); err != nil {
		return err
	}
	// A new sysfs shows the devices of the new network namespace.
	if err := mounts.Fresh("sysfs", "/sys", ""); err != nil {
		return err
	}
	if err := cgroup.Mount(hs); err != nil {
		return err
	}
	if s.NodeFirst {
		if err := cgroup.MakeIdle(""); err != nil {
			return err
		}
	}
	if err := privateDirs(s); err != nil {
		return err
	}
	if err := shadowSysctls(s.Path("sysctl")); err != nil {
		return err
	}
	return unix.Sethostname([]byte(s.Machine().Name))
}

// ownDirs are the directories of the host that a node has changes of its own to.
var ownDirs = []string{"var", "etc", "opt"}

// privateDirs keeps what the components write off the host.
func privateDirs(s spec.Spec) error {
	if err := mounts.Fresh("tmpfs", "/run", "mode=755"); err != nil {
		return err
	}
	for _, d := range ownDirs {
		if err := mounts.Overlay("/"+d, s.Path("overlay", d)); err != nil {
			return err
		}
	}
	return nil
}

func shadowSysctls(dir string) error {
	for name, value := range hostSysctls {
		file := filepath.Join(dir, name)
		if err := write(file, []byte(value+"\n")); err != nil {
			return err
		}
		dst := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(dst); err != nil {
			continue // not in every kernel
		}
		if err := mounts.Bind(file, dst); err != nil {
			return err
		}
	}
	return nil
}
