//go:build lab

package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// chained are the services of a call chain, each of which calls the next, with the
// namespaces they are in.
var chained = []struct{ name, namespace string }{
	{"gate", "edge"}, {"cart", "edge"}, {"price", "core"}, {"stock", "core"}, {"bank", "vault"},
}

// chain is how gate calls the others: what integration/apps/internal/observe makes of a path.
const chain = "cart/via/price.core/stock.core/bank.vault"

// chainedService is one of them: a workload with an account of its own.
const chainedService = `---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      serviceAccountName: %[1]s
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: lab.local/api:1
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {app: %[1]s}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
`

// chainedFile is the one file of the stack: all five are borrowed, and calls for two of
// them come to copies on this machine.
const chainedFile = `redirect:
  cart.edge: :13001
  price.core: :13002
publish: [none]
sessions:
  gate: {namespace: edge, command: [python3, %[1]s, cart, price.core, stock.core, bank.vault]}
  cart: {namespace: edge, command: [python3, %[1]s, --listen, "13001"]}
  price: {namespace: core, command: [python3, %[1]s, --listen, "13002"]}
  stock: {namespace: core}
  bank: {namespace: vault}
`

// copyProgram is a copy of a service on this machine. It answers as those in the cluster do,
// and since a call that is redirected passes no sidecar it also says whom bank sees it as.
const copyProgram = `
import http.server, json, os, sys, urllib.request

def get(url):
    return json.load(urllib.request.urlopen(url, timeout=60))

def hop(hosts):
    out = {"session": os.environ["BORROWNET_SESSION"], "witness": get("http://bank.vault/")}
    if hosts:
        out["next"] = get("http://" + hosts[0] + "/via/" + "/".join(hosts[1:]))
    return out

class Copy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(hop([h for h in self.path.removeprefix("/via/").split("/") if h])).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

if sys.argv[1] == "--listen":
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Copy).serve_forever()
print(json.dumps(hop(sys.argv[1:])))
`

// chainHop is what a service of the chain, or a copy of one, answers.
type chainHop struct {
	seen           // by a service in the cluster
	Pod     string // that answered
	Session string // instead, of the copy that answered
	Witness *seen  // what bank saw of a call by the copy
	Next    *chainHop
}

// makeChain makes the services in the mesh, and lets the laptop's user borrow them.
func makeChain(t *testing.T) {
	t.Helper()
	var objects, services strings.Builder
	namespaces := map[string]bool{}
	for _, s := range chained {
		if !namespaces[s.namespace] {
			namespaces[s.namespace] = true
			fmt.Fprintf(&objects, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {istio-injection: enabled, %s: restricted}}\n", s.namespace, enforce)
			t.Cleanup(func() { kubectl(t, "delete", "namespace", s.namespace, "--wait=false") })
		}
		fmt.Fprintf(&services, chainedService, s.name, s.namespace)
	}
	kubectl(t, "apply", "-f", writeFile(t, objects.String()))
	kubectl(t, "apply", "-f", writeFile(t, services.String()))
	for n := range namespaces {
		role := mustBorrownet(t, "rbac", "-n", n, "--workloads", "--subject", "user:dev").stdout
		kubectl(t, "apply", "-f", writeFile(t, role))
	}
	for n := range namespaces {
		argv := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", n, "wait", "--for=condition=Available", "deployments", "--all", "--timeout=150s"}
		if r := (command{argv: argv, timeout: 3 * time.Minute}).run(t); r.code != 0 {
			t.Fatalf("%v\n%s", r, kubectl(t, "-n", n, "get", "pods,events"))
		}
	}
}

// account is the identity of a service of the chain.
func account(name string) string {
	for _, s := range chained {
		if s.name == name {
			return "spiffe://cluster.local/ns/" + s.namespace + "/sa/" + name
		}
	}
	return "no service " + name
}

// who returns the service whose pod a hop was answered by, and the identity that its
// sidecar saw, "" where no sidecar was.
func (h *chainHop) who(t *testing.T) (service, caller string) {
	t.Helper()
	if h.Session != "" {
		return "copy of " + h.Session, ""
	}
	service, _, _ = strings.Cut(h.Pod, "-")
	caller, by := h.identity(t)
	if by != account(service) {
		t.Errorf("pod %s answers as %s", h.Pod, by)
	}
	return service, caller
}

// hops lists who answered and whom each saw, in the order of the calls.
func (h *chainHop) hops(t *testing.T) []string {
	t.Helper()
	var list []string
	for ; h != nil; h = h.Next {
		service, caller := h.who(t)
		list = append(list, service+" saw "+caller)
	}
	return list
}

// inCluster makes the chain of calls from inside of gate's pod.
func inCluster(t *testing.T) *chainHop {
	t.Helper()
	var first chainHop
	waitFor(t, "the chain is complete in the cluster", patience, func() bool { // sidecars hear of each other by and by
		r := place{namespace: "edge", pod: "deploy/gate", container: "app"}.inside(t, "get", "http://"+chain)
		said, body, ok := strings.Cut(r.stdout, "{")
		if r.code != 0 || !ok || !strings.HasPrefix(said, "200 ") {
			return false
		}
		decode(t, "{"+body, &first)
		return true
	})
	// And whom the copies call besides.
	for from, url := range map[string]string{"edge gate": "http://bank.vault/", "edge cart": "http://bank.vault/", "core price": "http://bank.vault/", "vault bank": "http://stock.core/"} {
		namespace, service, _ := strings.Cut(from, " ")
		waitFor(t, service+" can call "+url, patience, func() bool {
			r := place{namespace: namespace, pod: "deploy/" + service, container: "app"}.inside(t, "get", url)
			return r.code == 0 && strings.HasPrefix(r.stdout, "200 ")
		})
	}
	return &first
}

// TestMeshCallChain borrows five services of three namespaces by one file. A call goes
// from a program that is gate to copies of cart and price on this machine, and from there
// to stock and bank in the cluster. Each hop has the identity of its own service, as in
// the chain that the pods themselves make, which goes on to the pods alone.
func TestMeshCallChain(t *testing.T) {
	needMesh(t)
	makeChain(t)
	dir := t.TempDir()
	program, file := filepath.Join(dir, "service.py"), filepath.Join(dir, "borrownet.yaml")
	for path, text := range map[string]string{program: copyProgram, file: fmt.Sprintf(chainedFile, program)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantInCluster := []string{"cart saw " + account("gate"), "price saw " + account("cart"), "stock saw " + account("price"), "bank saw " + account("stock")}
	pods := inCluster(t)
	if diff := cmp.Diff(wantInCluster, pods.hops(t)); diff != "" {
		t.Fatalf("the pods' own chain (-want +got):\n%s", diff)
	}
	mustBorrownet(t, "up", "-f", file, "-d")
	t.Cleanup(func() { mustBorrownet(t, "down", "-f", file, "--stop-agent") })
	for _, s := range chained {
		wantMesh(t, s.name, account(s.name))
	}
	runCopy(t, file, "cart", "127.0.0.1:13001")
	runCopy(t, file, "price", "127.0.0.1:13002")

	var gate chainHop
	decode(t, mustBorrownet(t, "run", "-f", file, "gate").stdout, &gate)
	want := []string{"copy of gate saw ", "copy of cart saw ", "copy of price saw ", "stock saw " + account("price"), "bank saw " + account("stock")}
	if diff := cmp.Diff(want, gate.hops(t)); diff != "" {
		t.Fatalf("the chain by way of the laptop (-want +got):\n%s", diff)
	}
	for h := &gate; h.Session != ""; h = h.Next {
		if got, _ := h.Witness.identity(t); got != account(h.Session) {
			t.Errorf("bank saw %s as %s, want %s", h.Session, got, account(h.Session))
		}
	}
	// The two that answered in the cluster are borrowed too, and their sessions are them.
	for session, url := range map[string]string{"stock": "http://bank.vault/", "bank": "http://stock.core/"} {
		got, _ := sees(t, session, url).identity(t)
		if got != account(session) {
			t.Errorf("session %s was seen as %s, want %s", session, got, account(session))
		}
	}
	if diff := cmp.Diff(wantInCluster, inCluster(t).hops(t)); diff != "" {
		t.Errorf("the pods' own chain beside it (-want +got):\n%s", diff)
	}
}

// runCopy runs a service of the stack, and waits until it listens.
func runCopy(t *testing.T, file, service, at string) {
	t.Helper()
	var said strings.Builder
	cmd := exec.Command("borrownet", "run", "-f", file, service)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			t.Logf("the copy of %s said: %s", service, said.String())
		}
	})
	waitFor(t, "the copy of "+service+" listens", patience, func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
