package view

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Attr returns how the process that calls Enter has to be started. Who may not
// mount gets a user namespace in which it may, with nobody in it but this user.
func (v View) Attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{}
	if v.Empty() {
		return attr
	}
	if len(v.Binds) > 0 {
		attr.Cloneflags |= unix.CLONE_NEWNS
	}
	if v.Hostname != "" {
		attr.Cloneflags |= unix.CLONE_NEWUTS
	}
	if capable() {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN} // or execve takes it away
	return attr
}

// capable reports whether this process may mount as it is.
func capable() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&hdr, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// Enter makes the view, and gives up on the calling thread what Attr gave for
// it. The caller must be locked to its thread, and execute the command on it.
func (v View) Enter() error {
	if v.Empty() {
		return nil
	}
	if v.Hostname != "" {
		if err := unix.Sethostname([]byte(v.Hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
	}
	if len(v.Binds) > 0 {
		// What is mounted on the machine later shows here, not the other way round.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
	}
	for _, b := range v.Binds {
		if err := v.bind(b); err != nil {
			return fmt.Errorf("show %s: %w", b.Target, err)
		}
	}
	if os.Getuid() == 0 {
		return nil // it had all of it before
	}
	if len(v.Binds) > 0 {
		for _, dir := range v.Own {
			if err := v.own(dir); err != nil {
				return fmt.Errorf("make the files of %s one's own: %w", dir, err)
			}
		}
	}
	return drop()
}

// drop takes all capabilities from the calling thread.
func drop() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give capabilities up: %w", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return fmt.Errorf("give capabilities up: %w", err)
	}
	return nil
}

// bind shows b.Source at b.Target. Where the path does not exist, the deepest
// directory of it that does is replaced by one that has all that is in it, and
// the rest of the path.
func (v View) bind(b Bind) error {
	source, err := unix.Open(b.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // its path may be hidden soon
	if err != nil {
		return err
	}
	defer unix.Close(source)
	base, rest, err := existing(b.Target)
	if err != nil {
		return err
	}
	if rest == "" {
		return show(source, base)
	}
	return v.extend(base, rest, source)
}

// existing splits path into the deepest directory of it that exists, with links
// resolved, and the rest.
func existing(path string) (base, rest string, err error) {
	for base = filepath.Clean(path); ; base = filepath.Dir(base) {
		resolved, err := filepath.EvalSymlinks(base)
		if errors.Is(err, fs.ErrNotExist) {
			if fi, lerr := os.Lstat(base); lerr == nil && fi.Mode()&fs.ModeSymlink != 0 {
				return "", "", &fs.PathError{Op: "follow link", Path: base, Err: unix.ENOENT}
			}
			rest = filepath.Join(filepath.Base(base), rest)
			continue
		}
		if err != nil {
			return "", "", err
		}
		if fi, err := os.Stat(resolved); err != nil || !fi.IsDir() {
			return "", "", &fs.PathError{Op: "open directory", Path: base, Err: unix.ENOTDIR}
		}
		return resolved, rest, nil
	}
}

// show mounts the directory behind a descriptor at target, read-only.
func show(source int, target string) error {
	if err := unix.Mount(descriptor(source), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return readOnly(target)
}

// readOnly makes a mount read-only. Flags that it has may be locked.
func readOnly(target string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return err
	}
	const kept = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOATIME | unix.ST_NODIRATIME // as the flags of mount(2)
	flags := uintptr(st.Flags) & kept
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	return nil
}

func descriptor(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// extend replaces the directory base by one with the same things in it and
// source at rest.
func (v View) extend(base, rest string, source int) error {
	if err := unix.Mount("tmpfs", v.Scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := mirror(base, v.Scratch); err != nil {
		return err
	}
	place := filepath.Join(v.Scratch, rest)
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	if err := show(source, place); err != nil {
		return err
	}
	if err := readOnly(v.Scratch); err != nil {
		return err
	}
	if base == "/" {
		return v.pivot()
	}
	if err := unix.Mount(v.Scratch, base, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("put in place of %s: %w", base, err)
	}
	return nil
}

// mirror shows all that is in dir in the empty directory to. Things that cannot
// be shown to this user are left out.
func mirror(dir, to string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, at := filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(from)
			if err != nil {
				continue // gone meanwhile
			}
			if err := os.Symlink(link, at); err != nil {
				return err
			}
			continue
		case e.IsDir():
			err = os.Mkdir(at, 0o755)
		default:
			var f *os.File
			if f, err = os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
				err = f.Close()
			}
		}
		if err != nil {
			return err
		}
		if err := unix.Mount(from, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			_ = os.Remove(at) // gone meanwhile, or not for us: as if it were not there
		}
	}
	return nil
}

// pivot makes the scratch directory the root.
func (v View) pivot() error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := unix.Chdir(v.Scratch); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // pivot_root(2): the old root is on top now
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return unix.Chdir(cwd)
}
