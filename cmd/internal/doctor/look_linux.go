package doctor

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
)

// Look finds out about this machine, by trying. helper is the argument vector that
// ends in netns.Main. What it makes to try is gone when it returns. The directory and
// the daemon are the caller's to find.
func Look(ctx context.Context, helper []string) *Machine {
	m := &Machine{Root: os.DirFS("/"), Release: release(), Listener: supervisor.Probe(), Library: hook.Built(), TUN: openTUN(), Engines: engines(ctx)}
	m.Device, m.Namespace = netns.Probe(ctx, helper)
	return m
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

func openTUN() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// engineTimeout bounds the wait for a container engine.
const engineTimeout = time.Second

// engines returns the sockets of container engines that answer.
func engines(ctx context.Context) []string {
	candidates := []string{"/var/run/docker.sock", "/run/podman/podman.sock"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		candidates = append(candidates, filepath.Join(dir, "docker.sock"), filepath.Join(dir, "podman/podman.sock"))
	}
	if path, is := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); is {
		candidates = append(candidates, path)
	}
	var found []string
	for _, path := range candidates {
		d := net.Dialer{Timeout: engineTimeout}
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			continue
		}
		_ = conn.Close()
		found = append(found, path)
	}
	return found
}
