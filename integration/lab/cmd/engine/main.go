// Command engine runs a command beside a Docker engine of its own, in namespaces
// of its own: the engine's bridges, rules, images and containers are there only
// while the command runs, and the machine's own engine, if any, is not seen.
//
//	engine [-uid UID] [--] CMD…
//
// The command runs as root, or with -uid as that user in the engine's group.
// Docker is Debian's, or whatever dockerd is on the PATH. Needs root.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
	"github.com/borrownet/borrownet/integration/lab/internal/docker"
	"github.com/borrownet/borrownet/integration/lab/internal/state"
)

// failed is the exit code for a failure of the engine, not of the command.
const failed = 125

// The program's own stages, after the flags.
const (
	initVerb = "__init" // process 1 of the namespaces
	mainVerb = "__main" // starts the engine, then the command
)

func main() {
	// What is started ends with the thread that started it, and namespaces are a
	// thread's.
	runtime.LockOSThread()
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		if code == 0 {
			code = failed
		}
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) > 1 && args[0] == initVerb {
		return initMain(args[1], args[2:])
	}
	flags := flag.NewFlagSet("engine", flag.ContinueOnError)
	uid := flags.Int("uid", 0, "user `ID` of the command")
	if err := flags.Parse(args); err != nil {
		return failed, nil // it has been said
	}
	if len(args) > 1 && flags.Arg(0) == mainVerb {
		return mainMain(flags.Arg(1), *uid, flags.Args()[2:])
	}
	if flags.NArg() == 0 {
		return failed, errors.New("no command to run")
	}
	if os.Geteuid() != 0 {
		return failed, errors.New("namespaces and an engine need root (try sudo)")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return failed, err
	}
	st, err := state.Create(filepath.Join(cache, "borrownet-lab", "engines"), fmt.Sprintf("run-%d", os.Getpid()))
	if err != nil {
		return failed, err
	}
	code, err := spawn(st, args)
	return code, errors.Join(err, st.Remove())
}

// spawn runs process 1 until it ends. Ctrl-C is for the command.
func spawn(st *state.Lab, args []string) (int, error) {
	signal.Ignore(syscall.SIGINT)
	self, err := os.Executable()
	if err != nil {
		return failed, err
	}
	cmd := exec.Command(self, append([]string{initVerb, st.Dir}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	cmd.Env = append(os.Environ(), groupVar+"="+st.Cgroup())
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// groupVar tells process 1 its control group.
const groupVar = "ENGINE_CGROUP"

// initMain is process 1: it prepares the namespaces, starts the next stage and
// reaps until that has ended.
func initMain(dir string, args []string) (int, error) {
	group := os.Getenv(groupVar)
	if err := os.Unsetenv(groupVar); err != nil {
		return failed, err
	}
	if err := prepare(dir, group); err != nil {
		return failed, err
	}
	// The flags stay in front.
	flags := flag.NewFlagSet("engine", flag.ContinueOnError)
	uid := flags.Int("uid", 0, "")
	if err := flags.Parse(args); err != nil {
		return failed, err
	}
	argv := append([]string{"engine", "-uid", fmt.Sprint(*uid), "--", mainVerb, dir}, flags.Args()...)
	pid, err := syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return failed, fmt.Errorf("start the next stage: %w", err)
	}
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return failed, os.NewSyscallError("wait4", err)
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case got == pid:
			return ws.ExitStatus(), nil
		}
	}
}

// mainMain starts the engine and, once it answers, runs the command.
func mainMain(dir string, uid int, argv []string) (int, error) {
	if len(argv) == 0 {
		return failed, errors.New("no command to run")
	}
	engine, err := docker.Start(filepath.Join(dir, "docker"), engineGroup)
	if err != nil {
		return failed, err
	}
	defer stop(engine)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{engineGroup}}}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// prepare is called in the new namespaces.
func prepare(dir, group string) error {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := cgroup.Join(group); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return private(dir, hs)
}
