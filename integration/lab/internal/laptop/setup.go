package laptop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/docker"
	"github.com/borrownet/borrownet/integration/lab/internal/mounts"
	"github.com/borrownet/borrownet/integration/lab/internal/resolved"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

const (
	// Home is below /var, which is an overlay: nothing has to be made on the host.
	Home       = "/var/home/" + spec.UserName
	binDir     = "/run/lab/bin"
	Kubeconfig = Home + "/.kube/config"
	adminFile  = "/run/lab/admin.kubeconfig"
	goCache    = Home + "/.cache/go-build"
)

// files of /etc that the laptop has instead of the host's.
var files = map[string]string{
	"resolv.conf":   "nameserver " + spec.DeadNameserver + "\noptions timeout:1 attempts:1\n",
	"hosts":         "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n127.0.1.1\tlaptop\n",
	"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	"hostname":      "laptop\n",
	// Included by Debian's ssh_config, as distributions do with their own settings.
	"ssh/ssh_config.d/50-lab.conf": "Host lab-alias\n  HostName lab.example.org\n",
}

const network = `link set lo up
address add ` + spec.LaptopIP + ` dev eth0
link set eth0 up
route add default via ` + spec.LaptopGateway + `
`

func notifyChildren(c chan<- os.Signal) { signal.Notify(c, syscall.SIGCHLD) }

// setUp runs in the new namespaces. Paths below a private mount are reached by
// descriptors that are opened before it is made, and after what the node has mounted
// is gone: a mount that is gone cannot be shown again.
func setUp(s spec.Spec) error {
	if err := leaveNode(); err != nil {
		return err
	}
	seen, err := openAll(s)
	if err != nil {
		return err
	}
	defer func() { _ = closeAll(seen) }()
	for _, step := range []func(spec.Spec) error{
		func(spec.Spec) error { return unix.Sethostname([]byte("laptop")) },
		setUpNetwork, privateMounts, tunDevice, etc, home, runtimeDir, tools, engine, nameService, ownTmp,
	} {
		if err := step(s); err != nil {
			return err
		}
	}
	return expose(seen)
}

func setUpNetwork(spec.Spec) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(network)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, bytes.TrimSpace(out))
	}
	// As systemd sets it on a developer's machine.
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
}

// leaveNode takes away the directories that the node made for itself.
func leaveNode() error {
	if err := mounts.Private(); err != nil {
		return err
	}
	for _, d := range []string{"var", "etc", "opt"} {
		if err := mounts.Drop("/" + d); err != nil {
			return err
		}
	}
	return nil
}

// privateMounts replaces what a user could leave things in.
func privateMounts(s spec.Spec) error {
	var groups []cgroup.Hierarchy
	if s.Docker { // containers have to be put somewhere
		var err error
		if groups, err = cgroup.Hierarchies(); err != nil {
			return err
		}
	}
	for _, d := range []string{"var", "etc"} {
		if err := mounts.Overlay("/"+d, s.Path("laptop", "overlay", d)); err != nil {
			return err
		}
	}
	// A proc with nothing mounted on it can be mounted again in user namespaces.
	for dst, fstype := range map[string]string{"/proc": "proc", "/sys": "sysfs"} {
		if err := mounts.Fresh(fstype, dst, ""); err != nil {
			return err
		}
	}
	if len(groups) > 0 {
		if err := cgroup.Mount(groups); err != nil {
			return err
		}
	}
	if err := mounts.Fresh("tmpfs", "/run", "mode=755"); err != nil {
		return err
	}
	return mounts.Fresh("tmpfs", "/dev/shm", "mode=1777")
}

// ownTmp comes last: what the steps before take from the host may be below /tmp.
func ownTmp(s spec.Spec) error {
	tmp := s.Path("laptop", "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o1777|os.ModeSticky); err != nil {
		return err
	}
	return mounts.Bind(tmp, "/tmp")
}

// tunDevice opens /dev/net/tun to everyone, as udev does on a desktop, with a
// node of the laptop's own: the host's has one mode for all.
func tunDevice(spec.Spec) error {
	const own, place = "/run/lab/net", "/dev/net"
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

func etc(spec.Spec) error {
	for name, text := range files {
		path := filepath.Join("/etc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// It may be a link to a file of the host's /run.
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	user := fmt.Sprintf("%s:x:%d:%[2]d::%s:/bin/bash\n", spec.UserName, spec.UserID, Home)
	if err := appendTo("/etc/passwd", user); err != nil {
		return err
	}
	return appendTo("/etc/group", fmt.Sprintf("%s:x:%d:\n", spec.UserName, spec.UserID))
}

func home(s spec.Spec) error {
	for _, d := range []string{Home, Home + "/.kube", Home + "/.cache", goCache} {
		if err := ownDir(d, 0o755); err != nil {
			return err
		}
	}
	if s.BuildCache != "" {
		if err := mounts.Bind(s.BuildCache, goCache); err != nil {
			return err
		}
	}
	return ownCopy(s.Path("kubeconfig", cluster.DeveloperConfig), Kubeconfig)
}

func runtimeDir(spec.Spec) error {
	if err := os.MkdirAll("/run/user", 0o755); err != nil {
		return err
	}
	return ownDir(RuntimeDir, 0o700)
}

func tools(s spec.Spec) error {
	if err := mounts.Bind(filepath.Join(s.Kit, "hyperkube"), filepath.Join(binDir, "kubectl")); err != nil {
		return err
	}
	return ownCopy(s.Path("kubeconfig", cluster.AdminConfig), adminFile)
}

// engine starts the user's Docker engine, if the laptop is to have one. It ends
// with the laptop. What it keeps is where expose covers nothing: it runs already.
func engine(s spec.Spec) error {
	if !s.Docker {
		return nil
	}
	_, err := docker.Start("/run/lab/docker", spec.UserID)
	return err
}

// nameService starts systemd-resolved, if it was there when the lab was built. The laptop's resolv.conf does not
// name it: tests that want that have a mount namespace of their own.
func nameService(s spec.Spec) error {
	if !hasResolved(s) {
		return nil
	}
	if err := mounts.Bind(filepath.Join(s.Kit, "resolved"), resolved.Dir); err != nil {
		return err
	}
	return resolved.Start(s.Path("log"))
}

func hasResolved(s spec.Spec) bool {
	_, err := os.Stat(filepath.Join(s.Kit, "resolved"))
	return err == nil
}

func ownDir(path string, mode os.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return os.Chown(path, spec.UserID, spec.UserID)
}

func ownCopy(src, dst string) error {
	b, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dst, b, 0o600); err != nil {
		return err
	}
	return os.Chown(dst, spec.UserID, spec.UserID)
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
