// Package cgroup gives a lab a control group of its own name in every mounted
// hierarchy, shows it to the lab as the root, and removes it afterwards.
//
// It handles cgroup v1, the hybrid of v1 and v2, and v2 alone. As of 2026-11 the
// last of these follows the kernel's documentation and is unproven.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const root = "/sys/fs/cgroup"

// A Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	Mount   string // mount point
	Options string // mount options of a v1 hierarchy: its controllers or name
	V2      bool
}

// Hierarchies returns the hierarchies mounted at or below /sys/fs/cgroup.
func Hierarchies() ([]Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var hs []Hierarchy
	s := bufio.NewScanner(f)
	for s.Scan() {
		h, ok := parseMount(s.Text())
		if ok && !slices.ContainsFunc(hs, func(o Hierarchy) bool { return o.Mount == h.Mount }) {
			hs = append(hs, h)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	if len(hs) == 0 {
		return nil, fmt.Errorf("no cgroup file system at %s: %w", root, errors.ErrUnsupported)
	}
	return hs, nil
}

// parseMount reads a line of proc_pid_mountinfo(5).
func parseMount(line string) (Hierarchy, bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 3 {
		return Hierarchy{}, false
	}
	h := Hierarchy{Mount: left[4]}
	if h.Mount != root && !strings.HasPrefix(h.Mount, root+"/") {
		return Hierarchy{}, false
	}
	switch right[0] {
	case "cgroup2":
		h.V2 = true
	case "cgroup":
		h.Options = controllers(right[2])
	default:
		return Hierarchy{}, false
	}
	return h, true
}

// controllers picks from super options what selects the same v1 hierarchy again.
func controllers(super string) string {
	var keep []string
	for o := range strings.SplitSeq(super, ",") {
		switch {
		case o == "rw" || o == "ro" || o == "xattr" || o == "clone_children" || strings.HasPrefix(o, "release_agent="):
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// Create makes the group name in every hierarchy. After a failure Remove
// removes what was made.
func Create(name string) error {
	hs, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		if err := h.create(name); err != nil {
			return fmt.Errorf("create cgroup: %w", err)
		}
	}
	return nil
}

func (h Hierarchy) create(name string) error {
	if h.V2 && h.Mount == root {
		delegate(root)
	}
	dir := filepath.Join(h.Mount, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !slices.Contains(strings.Split(h.Options, ","), "cpuset") {
		return nil
	}
	// A new v1 cpuset is empty and takes no process; its children inherit from now on.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(h.Mount, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), b, 0); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.clone_children"), []byte("1"), 0)
}

// delegate turns every controller on for the children of the v2 group dir. Some
// may be refused, and the kubelet names the ones it misses.
func delegate(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(b)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// Join moves the calling process into the group name of every hierarchy.
func Join(name string) error {
	hs, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		if err := os.WriteFile(filepath.Join(h.Mount, name, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Mount mounts the hierarchies again at their places. Called in a new cgroup
// namespace and a private mount namespace, it shows the caller's groups as roots.
func Mount(hs []Hierarchy) error {
	if len(hs) == 1 && hs[0].V2 && hs[0].Mount == root {
		return mountUnified()
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", root, err)
	}
	for _, h := range hs {
		if err := os.MkdirAll(h.Mount, 0o755); err != nil {
			return err
		}
		fstype := "cgroup"
		if h.V2 {
			fstype = "cgroup2"
		}
		if err := unix.Mount(fstype, h.Mount, fstype, 0, h.Options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", fstype, h.Mount, err)
		}
		if err := h.link(); err != nil {
			return err
		}
	}
	return nil
}

// link gives controllers that are mounted together their single names.
func (h Hierarchy) link() error {
	names := strings.Split(h.Options, ",")
	if len(names) < 2 || names[0] == "none" {
		return nil
	}
	for _, n := range names {
		err := os.Symlink(filepath.Base(h.Mount), filepath.Join(filepath.Dir(h.Mount), n))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// mountUnified mounts v2 and moves the caller to a leaf, since a group that
// hands controllers to children may hold no process (cgroups(7)).
func mountUnified() error {
	if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup2 on %s: %w", root, err)
	}
	leaf := filepath.Join(root, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	delegate(root)
	return nil
}

// Remove removes the group name and everything below it from every hierarchy.
// It waits up to timeout for processes that are about to be gone.
func Remove(name string, timeout time.Duration) error {
	hs, err := Hierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	var errs []error
	for _, h := range hs {
		errs = append(errs, removeTree(filepath.Join(h.Mount, name), deadline))
	}
	return errors.Join(errs...)
}

func removeTree(dir string, deadline time.Time) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, e.Name()), deadline); err != nil {
			return err
		}
	}
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		// The kernel tells v1 of an emptied group through no descriptor.
		time.Sleep(10 * time.Millisecond)
	}
}
