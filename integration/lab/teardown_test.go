package lab_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startLimit is far beyond any start that was seen.
const startLimit = 6 * time.Minute

// TestNothingIsLeft ends labs in every way there is.
func TestNothingIsLeft(t *testing.T) {
	l := newLab(t)
	before := hostState()
	for _, tt := range []struct {
		name  string
		nodes string
		end   func(t *testing.T, r running)
	}{
		{"command-ends", "1", func(t *testing.T, r running) {
			r.stdin.Close()
			if err := r.cmd.Wait(); err != nil {
				t.Errorf("lab run: %v", err)
			}
		}},
		{"sigterm", "2", func(t *testing.T, r running) {
			signal(t, r.cmd.Process, syscall.SIGTERM)
			var exit *exec.ExitError
			if err := r.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGTERM) {
				t.Errorf("lab run: %v, want the code of a command that SIGTERM ended", err)
			}
		}},
		{"sigkill", "2", func(t *testing.T, r running) {
			signal(t, r.cmd.Process, syscall.SIGKILL)
			if err := r.cmd.Wait(); err == nil {
				t.Error("lab run was not killed")
			}
			waitFor(t, "end of every process of the lab", func() bool { return len(r.processes(t)) == 0 })
			l.output(t, "down") // as any later start would
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := l.start(t, tt.nodes)
			if n := len(r.processes(t)); n < 10 {
				t.Fatalf("the lab has %d processes, so counting them proves nothing", n)
			}
			if second, _ := filepath.Glob("/sys/fs/cgroup/*/" + r.cgroup + "/second/kubepods"); (len(second) > 0) != (tt.nodes == "2") {
				t.Errorf("control groups of a second node: %v, want %s nodes", second, tt.nodes)
			}
			begun := time.Now()
			tt.end(t, r)
			t.Logf("gone after %v", time.Since(begun).Round(10*time.Millisecond))
			if left := r.processes(t); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
			for what, now := range hostState() {
				for _, line := range now {
					if !slices.Contains(before[what], line) {
						t.Errorf("left of %s: %s", what, line)
					}
				}
			}
			for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} { // v1 and v2
				if left, err := filepath.Glob(pattern + r.cgroup); err != nil || len(left) > 0 {
					t.Errorf("left of control groups: %v, %v", left, err)
				}
			}
			if left, err := filepath.Glob(filepath.Join(l.cache, "labs", "*")); err != nil || len(left) != 1 {
				t.Errorf("left in the cache: %v, %v; want only the lock", left, err)
			}
		})
	}
}

// running is a `lab run` of its own lab, whose command ends with its stdin.
type running struct {
	cmd        *exec.Cmd
	stdin      interface{ Close() error }
	namespaces []string // of the node and the laptop
	cgroup     string   // name of its control groups
}

func (l lab) start(t *testing.T, nodes string) running {
	t.Helper()
	cmd := exec.Command(l.bin, "run", "--fresh", "--nodes", nodes, "bash", "-c", "echo ready; exec cat")
	cmd.Stderr = testWriter{t}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	timer := time.AfterFunc(startLimit, func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	timer.Stop()
	if err != nil {
		t.Fatalf("the lab did not start: %v, %v", err, cmd.Wait())
	}
	if line != "ready\n" {
		t.Fatalf("read %q", line)
	}
	var record struct{ Node, Laptop int }
	b, err := os.ReadFile(filepath.Join(l.cache, "labs", fmt.Sprintf("run-%d", cmd.Process.Pid), "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	r := running{cmd: cmd, stdin: stdin, cgroup: cgroupOf(t, record.Node)}
	for _, pid := range []int{record.Node, record.Laptop} {
		for _, kind := range []string{"mnt", "net", "ipc", "uts"} {
			link := fmt.Sprintf("/proc/%d/ns/%s", pid, kind)
			ns, err := os.Readlink(link)
			if err != nil {
				t.Fatal(err)
			}
			// Held open its number is not given to the next namespace of the machine.
			hold, err := os.Open(link)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { hold.Close() })
			r.namespaces = append(r.namespaces, ns)
		}
	}
	return r
}

// cgroupOf returns the first element of the process's path in some hierarchy.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	_, path, ok := strings.Cut(line, ":/")
	name, _, _ := strings.Cut(path, "/")
	if !ok || !strings.HasPrefix(name, "borrownet-lab-") {
		t.Fatalf("the node is in the control group %q", line)
	}
	return name
}

// processes returns those of the machine that are in a namespace of the lab.
func (r running) processes(t *testing.T) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		ns, err := os.Readlink(link)
		pid := strings.Split(link, "/")[2]
		if err == nil && slices.Contains(r.namespaces, ns) && !slices.Contains(found, pid) {
			found = append(found, pid)
		}
	}
	return found
}

// hostState is what a lab could change on the machine.
func hostState() map[string][]string {
	state := map[string][]string{}
	for what, script := range map[string]string{
		"mounts":  "grep borrownet-lab /proc/self/mountinfo",
		"devices": "ls /sys/class/net",
		"rules":   "nft list ruleset",
		"sysctls": "cd /proc/sys; grep . vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops " +
			"kernel/keys/root_maxkeys kernel/keys/root_maxbytes net/ipv4/ip_forward net/netfilter/nf_conntrack_max",
		"files": "ls -d /run/containerd /etc/containerd/config.toml /etc/cni/net.d/10-lab.conflist /opt/cni/bin/lab-bridge " +
			"/var/lib/kubelet /var/lib/cni /var/log/pods /var/home/dev",
		"tun": "stat -c '%a %U' /dev/net/tun",
	} {
		out, _ := exec.Command("sh", "-c", script).Output() // what is missing fails, and is empty
		state[what] = strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	return state
}

func signal(t *testing.T, p *os.Process, s syscall.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still waiting for the %s", what)
		}
	}
}
