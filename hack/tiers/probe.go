package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// probeArg makes this program the child that tries what a lab needs.
const probeArg = "__probe-lab"

// diskFree is what an ordinary user may still write to the file system of path.
func diskFree(path string) uint64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0
	}
	return uint64(st.Bavail) * uint64(st.Bsize)
}

// probeRace compiles a C program: the race detector is linked through cgo on Linux.
func probeRace(ctx context.Context) string {
	cc := "cc"
	if out, err := exec.CommandContext(ctx, goCmd(), "env", "CC").Output(); err == nil && strings.TrimSpace(string(out)) != "" {
		cc = strings.TrimSpace(string(out))
	}
	cmd := exec.CommandContext(ctx, cc, "-x", "c", "-o", os.DevNull, "-")
	cmd.Stdin = strings.NewReader("#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n")
	if err := cmd.Run(); err != nil {
		return "no C compiler (" + cc + "), which the race detector needs: `make setup` installs one"
	}
	return ""
}
