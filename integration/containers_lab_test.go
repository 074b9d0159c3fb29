//go:build lab

package integration

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

// labStack has two services that are to be pods of two namespaces, and two that are
// this machine's.
const labStack = `version: "3.8"
services:
  web:
    image: lab.local/caller:1
    ports: ["127.0.0.1:18090:8080"]
    depends_on:
      db: {condition: service_healthy}
    healthcheck: &alive
      test: [CMD, /caller, get, "http://127.0.0.1:8080/"]
      interval: 1s
      retries: 60
  worker:
    image: lab.local/caller:1
  cache:
    image: lab.local/caller:1
  db:
    image: lab.local/caller:1
    healthcheck: *alive
`

// needDocker skips a test where the laptop has no engine, and loads the images.
func needDocker(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB_DOCKER") == "" {
		t.Skip("needs an engine on the laptop (make test-docker)")
	}
	must(t, "docker", "load", "-i", filepath.Join("bin", "caller-image.tar"))
}

func must(t *testing.T, argv ...string) string {
	t.Helper()
	// What is installed of Docker, before what somebody put elsewhere.
	if strings.HasPrefix(argv[0], "docker") {
		argv[0] = "/usr/bin/" + argv[0]
	}
	r := command{argv: argv, timeout: 3 * time.Minute}.run(t)
	if r.code != 0 {
		t.Fatalf("%q: %v", argv, r)
	}
	return r.stdout
}

// body is what the caller prints after the status.
func body(r result) string {
	_, rest, _ := strings.Cut(r.stdout, "\n")
	return rest
}

// serviceIn is the address of a Service in another namespace than shop.
func serviceIn(t *testing.T, namespace, name string) string {
	t.Helper()
	return kubectl(t, "-n", namespace, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
}

// TestContainersInAMesh runs a compose file whose services are pods of two namespaces,
// one of them in a STRICT mesh.
func TestContainersInAMesh(t *testing.T) {
	needDocker(t)
	needMesh(t)
	dir := filepath.Join(t.TempDir(), "stack")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "docker-compose.yml")
	if err := os.WriteFile(file, []byte(labStack), 0o644); err != nil {
		t.Fatal(err)
	}
	// The developer may not borrow in the other namespace.
	compose := []string{"borrownet", "compose", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "shop", "-f", file,
		"--service", "web=api", "--service", "worker=deploy/caller@outside"}
	t.Cleanup(func() {
		exec.Command(compose[0], append(compose[1:len(compose):len(compose)], "down", "-t", "1")...).Run()
		exec.Command("borrownet", "down", "--all").Run()
	})
	run := func(words ...string) result {
		return command{argv: append(compose[:len(compose):len(compose)], words...), timeout: 3 * time.Minute}.run(t)
	}
	in := func(service string, words ...string) result {
		return run(append([]string{"exec", "-T", service, "/caller"}, words...)...)
	}
	if r := run("up", "-d"); r.code != 0 {
		t.Fatal(r)
	}
	wantIdentity(t, body(in("web", "get", "http://orders/")), "api")
	if r := in("worker", "get", "http://orders.shop/"); r.code == 0 || !strings.Contains(r.stderr, "reset by peer") {
		t.Errorf("worker, whose pod is in no mesh, at orders: %v", r)
	}
	// Short names are those of the pod's namespace.
	if r := in("worker", "lookup", "partner"); strings.TrimSpace(r.stdout) != serviceIn(t, "outside", "partner") {
		t.Errorf("worker finds partner at %v", r)
	}
	if r := in("worker", "get", "http://partner/"); r.code != 0 {
		t.Errorf("worker at partner: %v", r)
	}
	for _, pair := range [][2]string{{"web", "db"}, {"cache", "web"}, {"worker", "web"}, {"cache", "db"}} {
		if r := in(pair[0], "get", "http://"+pair[1]+":8080/"); r.code != 0 || !strings.Contains(r.stdout, `"app": "caller"`) {
			t.Errorf("%s at %s: %v", pair[0], pair[1], r)
		}
	}
	if got := must(t, "caller", "get", "http://127.0.0.1:18090/"); !strings.Contains(got, `"app": "caller"`) {
		t.Errorf("the laptop at web: %s", got)
	}
	orders := serviceIP(t, "orders")
	for _, url := range []string{"http://orders/", "http://orders.shop/", "http://" + orders + "/"} {
		if r := in("cache", "get", url); r.code == 0 {
			t.Errorf("cache reaches %s: %v", url, r)
		}
	}
	if r := run("down", "-t", "1"); r.code != 0 {
		t.Fatal(r)
	}
	if left := must(t, "docker", "ps", "-aq"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestContainersKeepConnections takes the way to the API server away for longer than a
// carrier lives: a container's connection waits and goes on.
func TestContainersKeepConnections(t *testing.T) {
	needDocker(t)
	must(t, "docker", "load", "-i", filepath.Join("bin", "busybox-image.tar"))
	up(t, "api", "--docker")
	echo := exec.Command("/usr/bin/docker", "run", "--rm", "-i", "--network", "container:borrownet-api", "lab.local/busybox:1", "nc", "ledger", "7000")
	in, err := echo.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := echo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := echo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		echo.Wait()
	})
	lines := bufio.NewScanner(out)
	say := func(text string) {
		t.Helper()
		if _, err := fmt.Fprintln(in, text); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(2*time.Minute, func() { echo.Process.Kill() })
		defer late.Stop()
		if !lines.Scan() || lines.Text() != text {
			t.Fatalf("said %q, heard %q, %v", text, lines.Text(), lines.Err())
		}
	}
	say("before")
	server := strings.TrimSuffix(strings.TrimPrefix(kubectl(t, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"), "https://"), ":6443")
	route := func(verb string) {
		t.Helper()
		// The user is no administrator of the laptop, but may use its engine.
		must(t, "docker", "run", "--rm", "-u", "0", "--network", "host", "--cap-add", "NET_ADMIN", "lab.local/busybox:1", "ip", "route", verb, "blackhole", server)
	}
	route("add")
	cut := true
	t.Cleanup(func() {
		if cut {
			route("del")
		}
	})
	end := time.Now().Add(time.Minute)
	for !strings.Contains(mustBorrownetOr(t, 33, "status", "api").stdout, "reconnecting") {
		if time.Now().After(end) {
			t.Fatal("the session does not notice")
		}
		<-time.After(time.Second / 2)
	}
	route("del")
	cut = false
	say("after")
	if r := mustBorrownet(t, "status", "api", "-o", "json"); strings.Contains(r.stdout, `"redials": 0`) {
		t.Errorf("no carrier was lost: %s", r.stdout)
	}
}

// mustBorrownetOr is mustBorrownet for commands that may end with another code too.
func mustBorrownetOr(t *testing.T, code int, args ...string) result {
	t.Helper()
	r := borrownet(t, args...)
	if r.code != 0 && r.code != code {
		t.Fatalf("borrownet %q: %v", args, r)
	}
	return r
}

// TestContainersGigabyteEachWay sends a container's bytes through the cluster.
func TestContainersGigabyteEachWay(t *testing.T) {
	needDocker(t)
	up(t, "api", "--docker")
	const size = 1 << 30
	sum := stream.Sum(size, 9)
	want := fmt.Sprintf("%d %s", size, hex.EncodeToString(sum[:]))
	for _, dir := range []struct{ probe, addr string }{{"upload", "ledger:7001"}, {"download", "ledger:7002"}} {
		start := time.Now()
		// This very binary is a probe too.
		got := must(t, "docker", "run", "--rm", "--network", "container:borrownet-api", "-v", self(t)+":/probe:ro", "--entrypoint", "/probe",
			"-e", probeVar+"="+dir.probe, "lab.local/caller:1", dir.addr, fmt.Sprint(size), "9")
		if strings.TrimSpace(got) != want {
			t.Errorf("%s: %s, want %s", dir.probe, got, want)
		}
		t.Logf("%s: %.0f MB/s with the container's start", dir.probe, float64(size)/1e6/time.Since(start).Seconds())
		start = time.Now()
		if got := probe(t, 5*time.Minute, dir.probe, dir.addr, fmt.Sprint(size), "9"); got != want {
			t.Errorf("%s by run: %s, want %s", dir.probe, got, want)
		}
		t.Logf("%s: %.0f MB/s by run", dir.probe, float64(size)/1e6/time.Since(start).Seconds())
	}
}

// TestContainersPing sends echo requests from a container: to another pod, whose answer
// comes by way of the pod, and to nobody.
func TestContainersPing(t *testing.T) {
	needDocker(t)
	must(t, "docker", "load", "-i", filepath.Join("bin", "busybox-image.tar"))
	up(t, "api", "--docker")
	ping := func(to string) result {
		return command{argv: []string{"/usr/bin/docker", "run", "--rm", "--network", "container:borrownet-api", "lab.local/busybox:1", "ping", "-c", "1", "-W", "10", to}}.run(t)
	}
	for _, a := range podOf(t, "ledger").Status.PodIPs {
		if r := ping(a.IP); r.code != 0 || !strings.Contains(r.stdout, "1 packets received") {
			t.Errorf("ping %s: %v", a.IP, r)
		}
	}
	if r := ping("10.244.0.250"); r.code == 0 {
		t.Errorf("an address that no pod has answers: %v", r)
	}
}

// TestContainersHaveFiles shows the pod's files to a container, whose user is another
// than the laptop's.
func TestContainersHaveFiles(t *testing.T) {
	needDocker(t)
	must(t, "docker", "load", "-i", filepath.Join("bin", "busybox-image.tar"))
	up(t, "api", "--docker")
	args := strings.Fields(mustBorrownet(t, "env", "--docker").stdout)
	const file = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	run := append(append([]string{"docker", "run", "--rm", "-u", "1000:1000"}, args...), "lab.local/busybox:1", "cat", file)
	if got := must(t, run...); got != "shop" {
		t.Errorf("%s: %q", file, got)
	}
	if r := (command{argv: append(append([]string{"/usr/bin/docker", "run", "--rm"}, args...), "lab.local/busybox:1", "touch", file)}).run(t); r.code == 0 {
		t.Errorf("%s can be written", file)
	}
}
