//go:build docker

package containers

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestDockerRun has containers of two kinds of image join the session.
func TestDockerRun(t *testing.T) {
	p := newPlace(t)
	rules := firewall(t)
	if said := p.up(); !strings.Contains(said, "docker run --network container:borrownet-api") {
		t.Errorf("up does not say how to join:\n%s", said)
	}
	for _, tt := range []struct {
		name string
		argv []string
		want string
		fail bool
	}{
		{"static", in("borrownet-api", caller, "get", "http://orders/some/path"), `"remote": "192.0.2.10:`, false},
		{"full-name", in("borrownet-api", caller, "get", "http://orders.shop.svc.cluster.local/"), `"app": "orders"`, false},
		{"userland", in("borrownet-api", busybox, "wget", "-q", "-O-", "http://orders/"), `"remote": "192.0.2.10:`, false},
		{"as-root", in("borrownet-api", "-u", "0", caller, "get", "http://orders/"), `"remote": "192.0.2.10:`, false},
		{"ipv6", in("borrownet-api", busybox, "sh", "-c", "echo hi | nc -w 30 2001:db8:0:2::22 11"), "[2001:db8:0:1::10]:", false},
		{"tcp-half-close", in("borrownet-api", busybox, "sh", "-c", "echo -n data | nc -w 30 ledger 9"), `{"bytes":4,`, false},
		{"udp", in("borrownet-api", "--entrypoint", "/borrownet", caller, "demo", "call", "udp://ledger:7", "echoed"), "echoed", false},
		{"musl", in("borrownet-api", "--entrypoint", "/bin/resolve-musl", busybox, "orders", "ledger", "nobody"), "orders 198.51.100.21\nledger 2001:db8:0:2::22 198.51.100.22\nnobody none", false},
		{"musl-services", in("borrownet-api", "--entrypoint", "/bin/resolve-musl", busybox, "-srv", "_echo._tcp.ledger", "_films._tcp.ledger"), "_echo._tcp.ledger ledger.shop.svc.cluster.local:7\n_films._tcp.ledger none", false},
		{"lookup", in("borrownet-api", busybox, "nslookup", "ledger.shop.svc.cluster.local"), "2001:db8:0:2::22", false},
		{"refused", in("borrownet-api", caller, "tcp", "ledger:81"), "connection refused", true},
		{"unreachable", in("borrownet-api", caller, "tcp", "unreachable:80"), "no route to host", true},
		{"no-such-name", in("borrownet-api", caller, "lookup", "nobody"), "no such host", true},
		// The container's loopback is its own, whatever listens on the laptop's.
		{"own-loopback", in("borrownet-api", busybox, "sh", "-c", "nc -l -p 9000 -e echo mine & until nc -w 30 127.0.0.1 9000; do sleep 0.1; done"), "mine", false},
		{"pod-address", in("borrownet-api", busybox, "ip", "addr", "show", "pod0"), "192.0.2.10/32", false},
		{"control", in("borrownet-api", busybox, "sh", "-c", "echo | nc -w 2 192.0.0.1 80"), "", true},
		// Nothing goes out by the engine's own network.
		{"outside", in("borrownet-api", busybox, "ip", "route", "get", "203.0.113.77"), "dev pod0", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := *p
			p.t = t
			if said, code := p.run(tt.argv...); !strings.Contains(said, tt.want) || tt.fail != (code != 0) {
				t.Errorf("exit code %d: %s", code, said)
			}
		})
	}
	if said, code := p.run("docker", "run", "--rm", caller, "get", "http://orders/"); code == 0 {
		t.Errorf("a container that has not joined reaches the cluster:\n%s", said)
	}
	if said := p.must(p.bin, "run", "--", p.bin, "demo", "call", "http://orders"); !strings.Contains(said, `"remote": "192.0.2.10:`) {
		t.Errorf("programs of the same session: %s", said)
	}
	if said := p.must(p.bin, "status"); !strings.Contains(said, "borrownet-api: joined, device tun") {
		t.Errorf("status:\n%s", said)
	}
	if now := firewall(t); now != rules {
		t.Errorf("the machine's rules have changed:\n%s\n%s", rules, now)
	}
	p.must(p.bin, "down")
	p.nothingLeft()
}

// firewall is what decides about packets of the machine. It is the engine's to change,
// not ours; a container without published ports is no reason.
func firewall(t *testing.T) string {
	t.Helper()
	var all string
	for _, argv := range [][]string{{"/usr/sbin/iptables-save"}, {"/usr/sbin/ip6tables-save"}, {"/usr/sbin/ip", "rule"}, {"/usr/sbin/ip", "route", "show", "table", "main", "scope", "global"}} {
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			t.Fatalf("%q: %v", argv, err)
		}
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") { // times and counters
				all += line
			}
		}
	}
	return all
}

// TestDockerLeastPrivilege looks at what the container may.
func TestDockerLeastPrivilege(t *testing.T) {
	p := newPlace(t)
	p.up("--docker=mine")
	var list []struct {
		Config     struct{ User string }
		HostConfig struct {
			Privileged, ReadonlyRootfs bool
			CapAdd, CapDrop            []string
			PidMode, NetworkMode       string
			Binds                      []string
			Mounts                     []struct{ Source, Target string }
		}
		Mounts []struct{ Source, Destination string }
	}
	if err := json.Unmarshal([]byte(p.must("docker", "inspect", "mine")), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v, %d containers", err, len(list))
	}
	h := list[0].HostConfig
	if h.Privileged || !h.ReadonlyRootfs || strings.Join(h.CapAdd, " ") != "NET_ADMIN" || strings.Join(h.CapDrop, " ") != "ALL" || h.PidMode != "" {
		t.Errorf("host config %+v", h)
	}
	if m := list[0].Mounts; len(m) != 1 || m[0].Destination != "/borrownet.sock" || !strings.HasPrefix(m[0].Source, p.dir) {
		t.Errorf("mounts %+v", m)
	}
	pid := strings.TrimSpace(p.must("docker", "inspect", "-f", "{{.State.Pid}}", "mine"))
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	const netAdmin = "CapEff:\t0000000000001000"
	if !strings.Contains(string(text), netAdmin) || !strings.Contains(string(text), "NoNewPrivs:\t1") {
		t.Errorf("status of the process:\n%s", text)
	}
	p.must(p.bin, "down")
	p.nothingLeft()
}

// TestDockerPublish reaches a server in a container by a port of the laptop.
func TestDockerPublish(t *testing.T) {
	p := newPlace(t)
	p.up("--publish", "18080:8080")
	p.must("docker", "run", "-d", "--rm", "--name", "web", "--network", "container:borrownet-api", caller)
	t.Cleanup(func() { p.run("docker", "rm", "-f", "web") })
	eventually(t, "the server to answer", func() (string, bool) {
		said, code := p.run(p.caller, "get", "http://127.0.0.1:18080/")
		return said, code == 0 && strings.Contains(said, `"app": "caller"`)
	})
	if said := p.must("docker", "exec", "web", "/caller", "get", "http://orders/"); decodeSeen(t, said).App != "orders" {
		t.Errorf("the server itself: %s", said)
	}
}

// TestDockerDaemonKilled kills the daemon: what has joined gets errors, never the
// laptop's own network, and nothing is left.
func TestDockerDaemonKilled(t *testing.T) {
	p := newPlace(t)
	p.up()
	p.must("docker", "run", "-d", "--rm", "--name", "app", "--network", "container:borrownet-api", "--cap-add", "NET_ADMIN", busybox, "sleep", "600")
	t.Cleanup(func() { p.run("docker", "rm", "-f", "app") })
	p.must("docker", "exec", "app", "/bin/busybox", "ip", "route", "get", "203.0.113.77")
	daemons := p.pids("__daemon")
	if len(daemons) != 1 {
		t.Fatalf("daemons: %q", daemons)
	}
	pid, err := strconv.Atoi(daemons[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container to go", func() (string, bool) {
		left := p.must("docker", "ps", "-aq", "--filter", "label=dev.borrownet.session")
		return left, left == ""
	})
	if said, code := p.run("docker", "exec", "app", "/bin/busybox", "ip", "route", "get", "203.0.113.77"); code == 0 {
		t.Errorf("there is a way out: %s", said)
	}
	if said, code := p.run("docker", "exec", "app", "/bin/caller", "get", "http://198.51.100.21/"); code == 0 || !strings.Contains(said, "network is unreachable") && !strings.Contains(said, "no route to host") {
		t.Errorf("exit code %d: %s", code, said)
	}
	p.up() // takes the name again
	p.must(in("borrownet-api", caller, "get", "http://orders/")...)
	p.must(p.bin, "down")
	p.nothingLeft()
}

// TestDockerErrors checks what a person reads.
func TestDockerErrors(t *testing.T) {
	p := newPlace(t)
	up := []string{p.bin, "up", "--pod", "api", "--context", "demo", "-d", "--docker"}
	with := func(env ...string) *place {
		q := *p
		q.env = env
		return &q
	}
	closed := filepath.Join(p.dir, "closed.sock")
	ln, err := net.Listen("unix", closed)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := os.Chmod(closed, 0o600); err != nil { // root's
		t.Fatal(err)
	}
	with("DOCKER_HOST=unix:///nonexistent/docker.sock").fails(22, []string{"error: reach the container engine at /nonexistent/docker.sock: no engine listens there", "hint: is Docker installed and running?"}, up...)
	with("DOCKER_HOST=unix://"+closed).fails(22, []string{"this user may not use it", "hint: sudo usermod -aG docker"}, up...)
	with("DOCKER_HOST=tcp://build.example.org:2375").fails(22, []string{"it is not on this machine", "hint: DOCKER_HOST=unix://"}, up...)
	p.fails(2, []string{"not the name of a container", "hint: "}, append(up, "--docker=a/b")...)

	p.must("docker", "create", "--name", "borrownet-api", caller)
	p.fails(22, []string{"error: make container borrownet-api: there is a container of that name", "hint: docker rm -f borrownet-api, or another name: --docker=OTHER"}, up...)
	p.must("docker", "rm", "borrownet-api")

	taken, err := net.Listen("tcp", "127.0.0.1:18081")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p.fails(22, []string{"error: start container borrownet-api: a port that is to be published is taken", "hint: see who has it"}, append(up, "--publish", "18081:8080")...)
	p.fails(30, nil, p.bin, "status") // no session of a failed up stays
	p.nothingLeft()
}

// TestDockerEnv gives a container the pod's environment.
func TestDockerEnv(t *testing.T) {
	p := newPlace(t)
	p.up()
	args := strings.Fields(p.must(p.bin, "env", "--docker"))
	if file := args[slices.Index(args, "--env-file")+1]; filepath.Dir(file) != p.memory() {
		t.Errorf("the environment is in %s, want it in memory: %s", file, p.memory())
	}
	p.noneOnDisk("LEDGER_SERVICE_HOST=")
	run := append(append([]string{"docker", "run", "--rm"}, args...), "-e", "MODE=mine", busybox, "env")
	if env := p.must(run...); !strings.Contains(env, "APP_NAME=api\n") || !strings.Contains(env, "LEDGER_SERVICE_HOST=198.51.100.22\n") || !strings.Contains(env, "MODE=mine\n") {
		t.Errorf("environment:\n%s", env)
	}
	p.must(p.bin, "down")
	p.nothingLeft()
	p.must(p.bin, "up", "--pod", "api", "--context", "demo", "-d")
	p.fails(31, []string{"error: use session api: it keeps no container", "hint: borrownet down api"}, p.bin, "env", "--docker")
}

// TestDockerContainerGone removes, restarts and replaces the container.
func TestDockerContainerGone(t *testing.T) {
	p := newPlace(t)
	p.up()
	joined := func(want string) {
		t.Helper()
		eventually(t, "status to say "+want, func() (string, bool) {
			said := p.must(p.bin, "status")
			return said, strings.Contains(said, "borrownet-api: "+want)
		})
	}
	p.must("docker", "restart", "-t", "3", "borrownet-api")
	joined("joined")
	eventually(t, "the restarted container to be in the session", func() (string, bool) { // that it was in it may be said a moment longer
		said, code := p.run(in("borrownet-api", caller, "get", "http://orders/")...)
		return said, code == 0
	})
	p.must("docker", "rm", "-f", "borrownet-api")
	joined("none has joined")
	p.must(p.bin, "run", "--", p.bin, "demo", "call", "http://orders") // the session goes on
	p.must(p.bin, "down")
	p.nothingLeft()
	p.up()
	p.must(in("borrownet-api", caller, "get", "http://orders/")...)
}
