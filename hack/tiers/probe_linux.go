package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// labDisk and labMemory are what a first build of the lab needs, measured.
const (
	labDisk   = 8 << 30
	labMemory = 3 << 30

	runDisk = 3 << 30 // what a run needs of images and logs, when all is built
)

// lacksDisk says that there is too little room for a first build or, where nothing is missing of what that makes, for a run.
func lacksDisk(missing string, build uint64) string {
	free := diskFree(".")
	switch {
	case missing != "" && free < build:
		return fmt.Sprintf("%s of disk are free, a first build needs %s", gib(free), gib(build))
	case free < runDisk:
		return fmt.Sprintf("%s of disk are free, a run needs %s", gib(free), gib(runDisk))
	}
	return ""
}

// probeHook tries a user and network namespace as the unprivileged user.
func probeHook(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-h")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		return fmt.Sprintf("user and network namespaces are refused here (%v)", err)
	}
	return ""
}

// probeLab tries what the lab does first: namespaces, mounts and a control group.
func probeLab(ctx context.Context) string {
	if _, err := exec.LookPath("containerd"); err != nil {
		if _, err := exec.LookPath("apt-get"); err != nil {
			return "neither containerd nor apt-get to install it with"
		}
	}
	if lacks := lacksDisk(missingLab(ctx), labDisk); lacks != "" {
		return lacks
	}
	if free := memoryAvailable(); free < labMemory {
		return fmt.Sprintf("%s of memory are free, the lab needs %s", gib(free), gib(labMemory))
	}
	return probeNamespaces(ctx)
}

// probeNamespaces tries mounts and a control group in namespaces that a lab has.
func probeNamespaces(ctx context.Context) string {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", probeArg)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			return text
		}
		return fmt.Sprintf("mount, pid and network namespaces are refused here (%v)", err)
	}
	return ""
}

// meshMemory and meshDisk are what a first build with Istio needs, with room to spare.
const (
	meshDisk   = 12 << 30
	meshMemory = 4 << 30
)

// probeMesh looks for what a mesh needs besides a lab.
func probeMesh(ctx context.Context) string {
	if lacks := lacksDisk(missingMesh(ctx), meshDisk); lacks != "" {
		return lacks
	}
	if free := memoryAvailable(); free < meshMemory {
		return fmt.Sprintf("%s of memory are free, a meshed lab needs %s", gib(free), gib(meshMemory))
	}
	return probeLab(ctx)
}

// probeChild runs in the new namespaces; what it mounts ends with them.
func probeChild() int {
	if err := tryLab(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func tryLab() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	dir, err := os.MkdirTemp("", "borrownet-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := syscall.Mount("overlay", filepath.Join(dir, "merged"), "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	defer func() { _ = syscall.Unmount(filepath.Join(dir, "merged"), syscall.MNT_DETACH) }()
	return tryCgroup()
}

// tryCgroup makes a group in the memory controller of cgroup v1, else in v2, sees
// whether processes could be moved into it, and removes it.
func tryCgroup() error {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "memory")); err == nil {
		root = filepath.Join(root, "memory")
	}
	group, err := os.MkdirTemp(root, "borrownet-probe-")
	if err != nil {
		return fmt.Errorf("make a control group: %w", err)
	}
	defer os.Remove(group)
	procs, err := os.OpenFile(filepath.Join(group, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("use a control group: %w", err)
	}
	return procs.Close()
}
