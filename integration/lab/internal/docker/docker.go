// Package docker starts Debian's Docker engine in the namespaces of its caller,
// which must be private ones: it changes the firewall and the routes there.
package docker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Socket is where the engine listens.
const Socket = "/run/docker.sock"

const (
	startLimit = 3 * time.Minute
	path       = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Start starts the engine and returns when it answers. Its images and its log are
// in dir, and members of group may use it. The caller has to reap it; its
// containers end with the caller's process namespace.
func Start(dir string, group int) (*os.Process, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.RemoveAll("/etc/docker"); err != nil { // the machine's own settings are not for this one
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "dockerd.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", "/run/dk", "--pidfile", "/run/dk.pid",
		"-H", "unix://"+Socket, "--group", strconv.Itoa(group))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), path)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start dockerd (is docker.io installed?): %w", err)
	}
	if err := await(cmd.Process.Pid); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start dockerd: %w\n%s", err, text)
	}
	return cmd.Process, nil
}

// await returns when the engine answers or has ended.
func await(pid int) error {
	limit := time.Now().Add(startLimit)
	for {
		c, err := net.Dial("unix", Socket)
		switch {
		case err == nil:
			return c.Close()
		case ended(pid):
			return errors.New("it has ended")
		case time.Now().After(limit):
			return fmt.Errorf("it does not answer: %w", err)
		}
		time.Sleep(20 * time.Millisecond) // nothing announces it
	}
}

// ended reports whether a process is gone or waits to be reaped.
func ended(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}
