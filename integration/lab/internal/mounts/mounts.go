// Package mounts has the few mount calls that the node and the laptop share.
// Everything here is called in a private mount namespace, so nothing is undone:
// it ends with the namespace.
package mounts

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Private keeps later mounts from reaching the namespace this one was copied from.
func Private() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// Shared lets later mounts reach namespaces copied from this one, as the
// kubelet and runc require of /.
func Shared() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

// Fresh mounts a new file system of a kind that needs no device.
func Fresh(fstype, dst, options string) error {
	if err := unix.Mount(fstype, dst, fstype, 0, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, dst, err)
	}
	return nil
}

// Bind shows src, a file or a directory, at dst. A missing dst is made.
func Bind(src, dst string) error {
	if err := mountPoint(src, dst); err != nil {
		return err
	}
	if err := unix.Mount(src, dst, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", src, dst, err)
	}
	return nil
}

// BindTree is Bind with the mounts below src.
func BindTree(src, dst string) error {
	if err := mountPoint(src, dst); err != nil {
		return err
	}
	if err := unix.Mount(src, dst, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", src, dst, err)
	}
	return nil
}

func mountPoint(src, dst string) error {
	if _, err := os.Stat(dst); err == nil {
		return nil
	}
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(dst, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dst, nil, 0o644)
}

// Overlay lets changes to dir go to a directory under upper, so that the host's
// files stay as they are.
func Overlay(dir, upper string) error {
	up, work := filepath.Join(upper, "upper"), filepath.Join(upper, "work")
	for _, d := range []string{up, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, up, work)
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay on %s: %w", dir, err)
	}
	return nil
}

// Drop takes away the topmost mount of dst, also when it is in use.
func Drop(dst string) error {
	if err := unix.Unmount(dst, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dst, err)
	}
	return nil
}
