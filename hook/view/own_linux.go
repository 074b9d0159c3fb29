package view

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxOwn bounds a file of configuration, in bytes.
const maxOwn = 1 << 20

// own replaces a directory by one with copies of its files, which belong to this
// user. What this user may not read is left out, as it is for the programs.
func (v View) own(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return nil // it is missing, or not for this user: nobody reads anything there
	}
	if err := unix.Mount("tmpfs", v.Scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, e := range entries {
		text, err := readConfig(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(v.Scratch, e.Name()), text, 0o644); err != nil {
			return err
		}
	}
	if err := readOnly(v.Scratch); err != nil {
		return err
	}
	if err := unix.Mount(v.Scratch, dir, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("put in place: %w", err)
	}
	return nil
}

// readConfig reads a regular file of moderate size.
func readConfig(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxOwn {
		return nil, fmt.Errorf("%s is no file of configuration", path)
	}
	return io.ReadAll(io.LimitReader(f, maxOwn))
}
