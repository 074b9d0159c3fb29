package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
	"github.com/borrownet/borrownet/integration/lab/internal/mounts"
)

const (
	// engineGroup may use the engine's socket.
	engineGroup = 2375
	stopLimit   = 15 * time.Second
)

// private gives the namespaces mounts of their own: nothing that the engine
// writes reaches the machine.
func private(dir string, hs []cgroup.Hierarchy) error {
	if err := mounts.Private(); err != nil {
		return err
	}
	if err := mounts.Shared(); err != nil {
		return err
	}
	for dst, fstype := range map[string]string{"/proc": "proc", "/sys": "sysfs"} {
		if err := mounts.Fresh(fstype, dst, ""); err != nil {
			return err
		}
	}
	if err := cgroup.Mount(hs); err != nil {
		return err
	}
	if err := mounts.Fresh("tmpfs", "/run", "mode=755"); err != nil {
		return err
	}
	for _, d := range []string{"var", "etc", "opt"} {
		if err := mounts.Overlay("/"+d, filepath.Join(dir, "overlay", d)); err != nil {
			return err
		}
	}
	if err := tunDevice(); err != nil {
		return err
	}
	return wire()
}

// tunDevice opens /dev/net/tun to everyone, as udev does on a desktop.
func tunDevice() error {
	const own, place = "/run/engine-net", "/dev/net"
	if _, err := os.Stat(place); err != nil {
		return nil // the kernel has no TUN driver
	}
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	node := filepath.Join(own, "tun")
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return &os.PathError{Op: "mknod", Path: node, Err: err}
	}
	if err := os.Chmod(node, 0o666); err != nil { // past the umask
		return err
	}
	return mounts.Bind(own, place)
}

// network has a way out that leads nowhere, so that the engine's default routes
// have something to be refused by.
const network = `link set lo up
link add out0 type veth peer name out1
address add 203.0.113.2/30 dev out0
link set out0 up
link set out1 up
route add default via 203.0.113.1 dev out0
`

func wire() error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(network)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, bytes.TrimSpace(out))
	}
	// Whom the host's settings would ask is not there.
	if err := os.RemoveAll("/etc/resolv.conf"); err != nil {
		return err
	}
	return os.WriteFile("/etc/resolv.conf", []byte("nameserver 203.0.113.1\noptions timeout:1 attempts:1\n"), 0o644)
}

// stop ends the engine and its containers.
func stop(engine *os.Process) {
	_ = engine.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { // ends with the engine, or with this process
		defer close(ended)
		_, _ = engine.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(stopLimit): // what is left ends with process 1
	}
}
