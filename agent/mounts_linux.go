package agent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Mounts are the volumes of the agent's own container: what is mounted there
// besides the container's root and what every container has.
type Mounts struct{}

// Open implements Volumes.
func (Mounts) Open(at string) (*os.Root, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	points, err := volumes(f)
	if err != nil {
		return nil, err
	}
	if at = path.Clean(at); !slices.Contains(points, linked(at)) {
		return nil, fmt.Errorf("no volume is mounted at %s", at)
	}
	return os.OpenRoot(at)
}

// linked is a path as the kernel knows it: /var/run is a link in many images.
func linked(at string) string {
	if real, err := os.Readlink("/var/run"); err == nil && strings.HasPrefix(at, "/var/run/") {
		return path.Join("/var", real, strings.TrimPrefix(at, "/var/run"))
	}
	return at
}

// everyContainers are the mounts that every container has, and the file systems
// of the kernel's own.
var (
	everyContainers = []string{"/", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
	kernels         = []string{"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "devtmpfs"}
)

// volumes returns the mount points in a mountinfo file, proc(5), that are volumes.
func volumes(mountinfo io.Reader) ([]string, error) {
	var out []string
	for s := bufio.NewScanner(mountinfo); ; {
		if !s.Scan() {
			return out, s.Err()
		}
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		kind, _, _ := strings.Cut(after, " ")
		if !ok || len(fields) < 5 {
			return nil, fmt.Errorf("mountinfo: %q", s.Text())
		}
		point := unescape(fields[4])
		if slices.Contains(kernels, kind) || slices.Contains(everyContainers, point) || strings.HasPrefix(point, "/dev/") || strings.HasPrefix(point, "/proc/") || strings.HasPrefix(point, "/sys/") {
			continue
		}
		out = append(out, point)
	}
}

// unescape replaces the octal escapes of white space in a mount point.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
