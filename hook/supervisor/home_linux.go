package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// home is the network namespace this process lives in. Programs in another one
// (a container, a sandbox) made it on purpose and keep their own sockets.
type home struct {
	dev, ino uint64
	users    []byte // uid_map: which user namespace
}

func findHome() (home, error) {
	var st unix.Stat_t
	const ns = "/proc/self/ns/net"
	if err := unix.Stat(ns, &st); err != nil {
		return home{}, &os.PathError{Op: "stat", Path: ns, Err: err}
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return home{}, err
	}
	return home{dev: uint64(st.Dev), ino: st.Ino, users: users}, nil
}

// contains reports whether the thread pid is in the same network namespace, and
// if not, why not. It may have moved since its last call, so nothing is remembered.
func (h home) contains(pid, domain int) (bool, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	var st unix.Stat_t
	err := unix.Stat(dir+"/ns/net", &st)
	if err == nil {
		if uint64(st.Dev) != h.dev || st.Ino != h.ino {
			return false, fmt.Errorf("caller is in another network namespace")
		}
		return true, nil
	}
	// A process that is not dumpable hides its namespaces. A sandbox on its way
	// into one configures it by netlink; for the rest the user namespace decides,
	// since without privileges a network namespace takes a new one of those.
	if domain == unix.AF_NETLINK {
		return false, fmt.Errorf("find namespace of caller: %w", err)
	}
	users, uerr := os.ReadFile(dir + "/uid_map")
	if uerr != nil {
		return false, fmt.Errorf("find namespace of caller: %w", uerr)
	}
	if !bytes.Equal(users, h.users) {
		return false, fmt.Errorf("caller is in another user namespace")
	}
	return true, nil
}
