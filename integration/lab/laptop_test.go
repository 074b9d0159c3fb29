package lab_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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
			curl := func(where, limit string) error {
				return l.command(t, where, "curl", "-sk", "-o", "/dev/null", "--max-time", limit, tt.url).Run()
			}
			if err := curl("node", "30"); err != nil {
				t.Errorf("from the node: %v, want an answer", err)
			}
			limit := "2"
			if tt.laptop {
				limit = "30"
			}
			err := curl("run", limit)
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

// TestCheckoutBelowVar shows the laptop a source tree that is where it has directories of
// its own, in a directory that only its owner may pass.
func TestCheckoutBelowVar(t *testing.T) {
	l := newLab(t)
	dir, err := os.MkdirTemp("/var/tmp", "borrownet-checkout-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	checkout := filepath.Join(dir, "borrownet")
	if err := os.Mkdir(checkout, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(checkout, "go.mod"), []byte("module of a checkout\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const script = "cat $0/go.mod; ls -A ${0%/*}; touch $0/x 2>/dev/null || echo read-only"
	got := l.output(t, "run", "--fresh", "--checkout", checkout, "--", "bash", "-c", script, checkout)
	if want := "module of a checkout\nborrownet\nread-only"; got != want {
		t.Errorf("the laptop sees %q, want %q", got, want)
	}
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
	// A checkout below /tmp is shown there, so the directory need not be empty.
	t.Run("tmp-is-its-own", func(t *testing.T) {
		ours, err := os.CreateTemp("/tmp", "bn")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ours.Close(); os.Remove(ours.Name()) })
		theirs := ours.Name() + "-laptop"
		if got := l.output(t, "run", "bash", "-c", "touch "+theirs+"; ls -d "+ours.Name()+"*"); got != theirs {
			t.Errorf("of the files %s* the laptop has %q, want its own", ours.Name(), got)
		}
		if _, err := os.Stat(theirs); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the machine has a file of the laptop: %v", err)
		}
	})
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
