// Package lab_test proves what every other test of the lab relies on: the laptop
// is shut in, and nothing outlives a lab.
//
// It needs root and what hack/lab-build.sh builds, and uses a cache of its own, so
// it leaves a lab that somebody has up alone.
package lab_test

import (
	"bufio"
	"bytes"
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
const startLimit = 3 * time.Minute

// A lab runs the lab binary with its state in a directory of the test.
type lab struct {
	bin   string
	cache string
}

func newLab(t *testing.T) lab {
	t.Helper()
	need := func(ok bool, what string) {
		t.Helper()
		if ok {
			return
		}
		required := strings.Split(os.Getenv("BORROWNET_REQUIRE"), ",")
		if slices.Contains(required, "lab") || slices.Contains(required, "all") {
			t.Fatal("needs ", what)
		}
		t.Skip("needs ", what)
	}
	need(os.Geteuid() == 0, "root: makes namespaces, mounts and control groups")
	bin, err := filepath.EvalSymlinks("../../bin/lab")
	need(err == nil, "bin/lab: run hack/lab-build.sh")
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	return lab{bin: bin, cache: filepath.Join(cache, "borrownet-lab")}
}

func (l lab) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), l.bin, args...)
	cmd.Stderr = testWriter{t}
	return cmd
}

// output runs the lab binary, which has to succeed.
func (l lab) output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.command(t, args...).Output()
	if err != nil {
		t.Fatalf("lab %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// up starts the shared lab and takes it down with the test.
func (l lab) up(t *testing.T) {
	t.Helper()
	l.output(t, "up")
	t.Cleanup(func() {
		if out, err := exec.Command(l.bin, "down").CombinedOutput(); err != nil {
			t.Errorf("lab down: %v: %s", err, out)
		}
	})
}

// kubectl asks the cluster from the node.
func (l lab) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return l.output(t, append([]string{"node", "kubectl", "-n", "shop"}, args...)...)
}

// TestLaptopIsShutIn reaches addresses from the node, where they answer, and
// from the laptop, where they must not.
func TestLaptopIsShutIn(t *testing.T) {
	l := newLab(t)
	l.up(t)
	pod := strings.Fields(l.kubectl(t, "get", "pods", "-l", "app=orders", "-o", "jsonpath={.items[0].status.podIPs[*].ip}"))
	svc := strings.Fields(l.kubectl(t, "get", "service", "orders", "-o", "jsonpath={.spec.clusterIPs[*]}"))
	if len(pod) != 2 || len(svc) != 2 {
		t.Fatalf("orders has the pod addresses %v and the Service addresses %v, want both families", pod, svc)
	}
	for _, tt := range []struct {
		name, url string
		laptop    bool // answers there too
	}{
		{"api-server", "https://10.77.0.1:6443/", true},
		{"kubelet", "https://10.77.0.1:10250/", false},
		{"kubernetes-service", "https://10.96.0.1/", false},
		{"pod", "http://" + pod[0] + ":8080/", false},
		{"pod-ipv6", "http://[" + pod[1] + "]:8080/", false},
		{"service", "http://" + svc[0] + "/", false},
		{"service-ipv6", "http://[" + svc[1] + "]/", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			curl := []string{"curl", "-sk", "-o", "/dev/null", "--max-time", "2", tt.url}
			if err := l.command(t, append([]string{"node"}, curl...)...).Run(); err != nil {
				t.Errorf("from the node: %v, want an answer", err)
			}
			err := l.command(t, append([]string{"run"}, curl...)...).Run()
			if got := err == nil; got != tt.laptop {
				t.Errorf("answers on the laptop: %v (%v), want %v", got, err, tt.laptop)
			}
		})
	}
	t.Run("kubelet-link-local", func(t *testing.T) {
		line := strings.Fields(l.output(t, "node", "ip", "-o", "-6", "address", "show", "dev", "lap0", "scope", "link"))
		if len(line) < 4 {
			t.Fatalf("the wire has no link-local address: %v", line)
		}
		addr, _, _ := strings.Cut(line[3], "/")
		url := "https://[" + addr + "%25eth0]:10250/"
		if err := l.command(t, "run", "curl", "-sk", "--max-time", "2", url).Run(); err == nil {
			t.Errorf("%s answers", url)
		}
	})
	t.Run("no-way-out", func(t *testing.T) { noWayOut(t, l) })
	t.Run("names", func(t *testing.T) {
		if err := l.command(t, "run", "getent", "hosts", "orders.shop.svc.cluster.local").Run(); err == nil {
			t.Error("a name of the cluster resolves on the laptop")
		}
	})
	t.Run("user", func(t *testing.T) { laptopUser(t, l) })
	t.Run("exit-code", func(t *testing.T) { exitCode(t, l) })
}

// noWayOut looks at everything the laptop can send through: one device that is
// not loopback, whose other end drops what is not for the API server.
func noWayOut(t *testing.T, l lab) {
	devices := strings.Fields(l.output(t, "run", "ls", "/sys/class/net"))
	if !slices.Equal(devices, []string{"eth0", "lo"}) {
		t.Errorf("devices %v, want eth0 and lo", devices)
	}
	const counters = "/sys/class/net/lap0/statistics/rx_packets"
	before := l.output(t, "node", "cat", counters)
	for _, probe := range []string{
		"exec 3<>/dev/tcp/192.0.2.80/80", "exec 3<>/dev/tcp/198.51.100.80/443", "exec 3<>/dev/tcp/10.77.1.1/22",
	} {
		if err := l.command(t, "run", "timeout", "1", "bash", "-c", probe).Run(); err == nil {
			t.Errorf("%s: answered", probe)
		}
	}
	if after := l.output(t, "node", "cat", counters); after == before {
		t.Error("no probe came out of the laptop, so this test has proved nothing")
	}
	// On the node nothing leads further either: its device ends in itself.
	links := l.output(t, "node", "ip", "-o", "link")
	for _, line := range strings.Split(links, "\n") {
		// The other end of a device in a foreign namespace shows as link-netnsid or
		// link-netns; those of the laptop and the pods are the lab's own.
		name := strings.TrimSuffix(strings.Fields(line)[1], ":")
		base, _, _ := strings.Cut(name, "@")
		switch {
		case base == "lo", base == "cni0", base == "lap0", base == "node0", base == "node0p", strings.HasPrefix(base, "veth"):
		default:
			t.Errorf("the node has the device %s", name)
		}
	}
}

// laptopUser checks that the user is one a developer could be.
func laptopUser(t *testing.T, l lab) {
	for _, tt := range []struct{ name, script, want string }{
		{"id", "id -u; id -G", "1100\n1100"},
		{"no-privileges", "grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status | cut -f2 | sort -u", "0000000000000000"},
		{"user-namespace", "unshare -Urn id -u", "0"},
		{"mount-proc", "unshare -Urpf --mount-proc ps -o pid= | head -1 | tr -d ' '", "1"},
		{"tun", "exec 3<>/dev/net/tun && echo open", "open"},
		{"runtime-dir", "stat -c '%a %u' $XDG_RUNTIME_DIR", "700 1100"},
		{"home", "touch ~/x && echo ok", "ok"},
		{"rights", "kubectl auth can-i patch pods --subresource=ephemeralcontainers; kubectl auth can-i delete pods", "yes\nno"},
		{"admin", "kubectl --kubeconfig $LAB_ADMIN_KUBECONFIG auth can-i '*' '*'", "yes"},
		{"checkout", "test -r go.mod && echo ok", "ok"},
		{"checkout-is-read-only", "touch go.mod 2>/dev/null || echo no", "no"},
		{"tmp-is-its-own", "ls -A /tmp", ""},
		{"python", "python3 -c 'print(1)'", "1"},
		{"go", "go list ./integration/apps/stream", "github.com/borrownet/borrownet/integration/apps/stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// can-i answers "no" with a code of its own.
			if got := l.output(t, "run", "bash", "-c", "cd ../..; "+tt.script+"; true"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("without-tun", func(t *testing.T) {
		if got := l.output(t, "run", "--no-tun", "bash", "-c", "exec 3<>/dev/net/tun || echo closed"); got != "closed" {
			t.Errorf("got %q, want closed", got)
		}
	})
}

func exitCode(t *testing.T, l lab) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), l.bin, "run", "bash", "-c", "exit 7")
	cmd.Stderr = &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit code 7", err)
	}
	_, dir, ok := strings.Cut(strings.TrimSpace(stderr.String()), "are kept in ")
	if !ok {
		t.Fatalf("the place of the artifacts is not in %q", stderr.String())
	}
	for _, file := range []string{"components/kubelet.log", "events.txt", "pods.txt"} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Size() == 0 {
			t.Errorf("artifact %s: %v, or it is empty", file, err)
		}
	}
	if logs, err := filepath.Glob(filepath.Join(dir, "pods", "shop_api-*", "api", "*.log")); err != nil || len(logs) == 0 {
		t.Errorf("no log of the pod api: %v", err)
	}
}

// TestNothingIsLeft ends labs in every way there is.
func TestNothingIsLeft(t *testing.T) {
	l := newLab(t)
	before := hostState()
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, r running)
	}{
		{"command-ends", func(t *testing.T, r running) {
			r.stdin.Close()
			if err := r.cmd.Wait(); err != nil {
				t.Errorf("lab run: %v", err)
			}
		}},
		{"sigterm", func(t *testing.T, r running) {
			signal(t, r.cmd.Process, syscall.SIGTERM)
			var exit *exec.ExitError
			if err := r.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGTERM) {
				t.Errorf("lab run: %v, want the code of a command that SIGTERM ended", err)
			}
		}},
		{"sigkill", func(t *testing.T, r running) {
			signal(t, r.cmd.Process, syscall.SIGKILL)
			if err := r.cmd.Wait(); err == nil {
				t.Error("lab run was not killed")
			}
			waitFor(t, "end of every process of the lab", func() bool { return len(r.processes(t)) == 0 })
			l.output(t, "down") // as any later start would
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := l.start(t)
			if n := len(r.processes(t)); n < 10 {
				t.Fatalf("the lab has %d processes, so counting them proves nothing", n)
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

func (l lab) start(t *testing.T) running {
	t.Helper()
	cmd := exec.Command(l.bin, "run", "--fresh", "bash", "-c", "echo ready; exec cat")
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
	deadline := time.After(20 * time.Second)
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

// testWriter passes lines of a command to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}
