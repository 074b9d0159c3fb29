//go:build lab

package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// narrow is a namespace whose Role has no pods/portforward, with a policy that admits nothing but the agent.
const narrow = "narrow"

// cable is a TCP proxy in front of the API server that can be cut.
type cable struct {
	listener net.Listener
	server   string
	mu       sync.Mutex
	conns    map[net.Conn]bool
}

// newCable returns a cable and a kubeconfig that leads over it.
func newCable(t *testing.T) (*cable, string) {
	t.Helper()
	text := must(t, "kubectl", "config", "view", "--minify", "--flatten")
	server := strings.TrimSpace(must(t, "kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"))
	name := strings.TrimSpace(must(t, "kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].name}"))
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l, server: u.Host, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.carry(near) })
		}
	})
	t.Cleanup(func() { l.Close(); c.cut(); wg.Wait() })
	file := writeFile(t, text)
	must(t, "kubectl", "config", "set-cluster", name, "--kubeconfig", file, "--server", "https://"+l.Addr().String(), "--tls-server-name", u.Hostname())
	return c, file
}

func (c *cable) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	defer far.Close()
	c.note(true, near, far)
	defer c.note(false, near, far)
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(far, near); far.Close() })
	wg.Go(func() { io.Copy(near, far); near.Close() })
	wg.Wait()
}

func (c *cable) note(open bool, conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		if open {
			c.conns[conn] = true
		} else {
			delete(c.conns, conn)
		}
	}
}

// cut breaks every connection.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
}

// keptOpen has one connection and says each line back when twenty requests on it were answered.
const keptOpen = `
import http.client, sys
c = http.client.HTTPConnection("orders.shop", timeout=120)
c.connect()
first = c.sock
for line in iter(sys.stdin.readline, ""):
    for _ in range(20):
        c.request("GET", "/")
        r = c.getresponse()
        r.read()
        assert r.status == 200 and c.sock is first
    print(line, end="", flush=True)
`

// TestAttachCarrier: where port-forward is refused the session works over attach, with the Role that `borrownet rbac --attach`
// prints, and its flows live on when the connection to the API server breaks.
func TestAttachCarrier(t *testing.T) {
	kubectl(t, "delete", "namespace", narrow, "--ignore-not-found", "--timeout=180s")
	newNamespace(t, narrow, "")
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: lab.local/api-shell:1
    imagePullPolicy: IfNotPresent
    securityContext: {runAsUser: 10001}
`, narrow)))
	t.Cleanup(func() {
		exec.Command("borrownet", "down", "--all", "--stop-agent").Run()
		kubectl(t, "delete", "namespace", narrow, "--wait=false")
	})
	kubectl(t, "apply", "-f", writeFile(t, mustBorrownet(t, "rbac", "-n", narrow, "--workloads", "--attach", "--subject", "user:dev").stdout))
	kubectl(t, "-n", narrow, "wait", "--for=condition=Ready", "pod/app", "--timeout=180s")
	if r := (command{argv: []string{"kubectl", "-n", narrow, "port-forward", "pod/app", "0:8080"}, timeout: time.Minute}).run(t); r.code == 0 {
		t.Fatalf("port-forward is allowed: %v", r)
	}
	wire, config := newCable(t)
	over := func(args ...string) result {
		t.Helper()
		r := command{argv: append([]string{"borrownet"}, args...), env: []string{"KUBECONFIG=" + config}}.run(t)
		if r.code != 0 {
			t.Fatalf("borrownet %q: %v", args, r)
		}
		return r
	}
	if r := over("up", "-d", "-n", narrow, "--pod", "app"); !strings.Contains(r.stderr, "the link goes over attach") {
		t.Errorf("up does not say which way the link goes: %v", r)
	}
	if r := over("status"); !strings.Contains(r.stdout, "attach") {
		t.Errorf("status does not say so: %v", r)
	}

	program := exec.Command("borrownet", "run", "--", "python3", "-u", "-c", keptOpen)
	in, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	program.Stderr = &said
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, text := range []string{"before", "after a cut", "after another"} {
		if _, err := fmt.Fprintln(in, text); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(2*time.Minute, func() { program.Process.Kill() })
		if !lines.Scan() || lines.Text() != text {
			t.Fatalf("said %q, heard %q, %v\n%s", text, lines.Text(), lines.Err(), said.String())
		}
		late.Stop()
		wire.cut()
	}
	in.Close()
	if err := program.Wait(); err != nil {
		t.Errorf("the program: %v\n%s", err, said.String())
	}
	waitFor(t, "the session has a carrier again", patience, func() bool { return borrownet(t, "status").code == 0 })
	if r := over("status", "-o", "json"); strings.Contains(r.stdout, `"redials": 0`) || !strings.Contains(r.stdout, `"carrier": "attach"`) {
		t.Errorf("no carrier was lost, or the next was another: %v", r)
	}

	log := kubectl(t, "-n", narrow, "get", "pod", "app", "-o", "jsonpath={.spec.ephemeralContainers[0].name}")
	for line := range strings.Lines(kubectl(t, "-n", narrow, "logs", "app", "-c", log, "--tail=300")) {
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("the agent's log has a line that is no text: %q", line)
		}
	}
	over("down")
	if r := over("up", "-d", "-n", narrow, "--pod", "app"); !strings.Contains(r.stderr, "(reused)") {
		t.Errorf("the parked agent was not taken again: %v", r)
	}
	over("down", "--stop-agent")

	t.Run("target_image", func(t *testing.T) {
		over("up", "-d", "-n", narrow, "--pod", "app", "--agent-image", "target")
		var got seen
		decode(t, over("run", "--", "curl", "-sS", "http://orders.shop").stdout, &got)
		if got.App != "orders" {
			t.Errorf("orders saw %+v", got)
		}
		over("down", "--stop-agent")
	})
}

// TestPolicyAdmitsAttach: `borrownet policy --attach` admits the agent of such a session, and without it refuses it by name.
func TestPolicyAdmitsAttach(t *testing.T) {
	yard(t, guarded, "borrownet.dev/agent-only: \"true\"")
	kubectl(t, "apply", "-f", writeFile(t, mustBorrownet(t, "rbac", "-n", guarded, "--workloads", "--attach", "--subject", "user:dev").stdout))
	admit(t, "--registry", agentRepo)
	failsWith(t, command{argv: []string{"-n", guarded, "--pod", "app"}}, policyOf, "standard input")
	admit(t, "--registry", agentRepo, "--attach")
	waitFor(t, "the policy lets the agent in", patience, func() bool {
		return borrownet(t, "up", "--dry-run", "-n", guarded, "--pod", "app").code == 0
	})
	mustBorrownet(t, "up", "-d", "-n", guarded, "--pod", "app")
	mustBorrownet(t, "run", "--", "curl", "-sS", "http://orders.shop")
	mustBorrownet(t, "down", "--stop-agent")
}
