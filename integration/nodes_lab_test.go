//go:build lab

package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/integration/labnode"
)

// The nodes of a lab that has two. The API server and the lab's own pods are on the first.
const (
	firstNode  = "lab"
	secondNode = "lab-2"
)

// outage is the namespace of pods whose node is lost.
const outage = "outage"

// outageWorkload is one of them, by kind, name, and the seconds for which its pods stay on a
// node that is lost.
const outageWorkload = `---
apiVersion: apps/v1
kind: %[1]s
metadata: {name: %[2]s, namespace: ` + outage + `}
spec:
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: %[3]d}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: %[3]d}
      securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: lab.local/api:1
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: ` + outage + `}
spec: {selector: {app: %[2]s}, ports: [{port: 80, targetPort: 8080}]}
`

// onlyOn has what f makes placed on the node.
func onlyOn(t *testing.T, node string, f func()) {
	t.Helper()
	other := map[string]string{firstNode: secondNode, secondNode: firstNode}[node]
	kubectl(t, "cordon", other)
	defer kubectl(t, "uncordon", other)
	f()
}

// rolledOut waits until the pods of workloads are ready.
func rolledOut(t *testing.T, workloads ...string) {
	t.Helper()
	for _, w := range workloads {
		kubectl(t, "-n", outage, "rollout", "status", w, "--timeout=180s")
	}
}

// makeOutage makes, with a pod on the second node each, the Deployments "short" and "put",
// whose pods have a successor soon after the node is known to be lost; the StatefulSet "set",
// whose pod has none before an administrator says that the node is out of service; and the
// Deployment "twin", which has a second pod, on the first node.
func makeOutage(t *testing.T) {
	t.Helper()
	kubectl(t, "create", "namespace", outage)
	t.Cleanup(func() {
		borrownet(t, "down", "--all")
		kubectl(t, "delete", "namespace", outage, "--timeout=120s")
	})
	objects := fmt.Sprintf(outageWorkload, "Deployment", "short", 1) + fmt.Sprintf(outageWorkload, "Deployment", "put", 1) +
		fmt.Sprintf(outageWorkload, "StatefulSet", "set", 1) + fmt.Sprintf(outageWorkload, "Deployment", "twin", 300)
	onlyOn(t, secondNode, func() {
		kubectl(t, "apply", "-f", writeFile(t, objects))
		rolledOut(t, "deploy/short", "deploy/put", "deploy/twin", "sts/set")
	})
	role := mustBorrownet(t, "rbac", "-n", outage, "--workloads", "--subject", "user:dev").stdout
	kubectl(t, "apply", "-f", writeFile(t, role))
}

// nodeOf returns the node that a pod of outage is on.
func nodeOf(t *testing.T, pod string) string {
	t.Helper()
	return kubectl(t, "-n", outage, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
}

// callsFrom checks that calls of a session, to Services whose pods are on either node, come
// from its pod, which is on the node.
func callsFrom(t *testing.T, session, node string) {
	t.Helper()
	s := statuses(t)[session]
	if got := nodeOf(t, s.Target.Pod); got != node {
		t.Errorf("session %s is at pod %s on node %s, want node %s", session, s.Target.Pod, got, node)
	}
	other := "twin"
	if session == other { // who calls himself is masqueraded
		other = "put"
	}
	for _, url := range []string{"http://orders.shop/", "http://" + other + "." + outage + "/"} {
		if got := sees(t, session, url); !s.from(got.Remote) {
			t.Errorf("%s saw session %s as %s, want %v", url, session, got.Remote, s.Target.PodIPs)
		}
	}
}

// asker is a program that tries to connect whenever it is asked to, and says what comes of it.
const asker = `
import errno, socket, sys
peer = (socket.gethostbyname("ledger.shop"), 7000)
print("waiting", flush=True)
for line in sys.stdin:
    try:
        socket.create_connection(peer, 60).close()
        print("connected", flush=True)
    except OSError as e:
        print(errno.errorcode.get(e.errno, str(e)), flush=True)
`

// TestNodesOneIsLost: the second of two nodes loses its power and its network, without a
// word to anybody. The sessions of pods there say so and go on at pods on the first node:
// one that Kubernetes makes soon, one that was there already, and one that comes when an
// administrator has given the node up. One that is to stay is lost. When the node is back
// nothing of ours is on it, and pods there can be borrowed.
func TestNodesOneIsLost(t *testing.T) {
	if os.Getenv("LAB_NODES") != "2" {
		t.Skip("needs a lab of two nodes (hack/lab-run.sh --nodes 2)")
	}
	makeOutage(t)
	on := onNode(t)
	for _, up := range [][]string{{"short"}, {"put", "--stay"}, {"twin"}, {"set"}} {
		name := up[0]
		kind := "deploy/"
		if name == "set" {
			kind = "sts/"
		}
		mustBorrownet(t, append([]string{"up", "-d", "-n", outage, "--session", name, "--publish", "none", "--pod", kind + name}, up[1:]...)...)
		callsFrom(t, name, secondNode)
	}
	onlyOn(t, firstNode, func() { // only now: the session is at the other pod
		kubectl(t, "-n", outage, "scale", "deploy/twin", "--replicas=2")
		rolledOut(t, "deploy/twin")
	})
	before := statuses(t)
	short, put, twin, set := startWaiter(t, "short"), startWaiter(t, "put"), startWaiter(t, "twin"), startWaiter(t, "set")
	asks := startProgram(t, "set", asker)

	s := short.moves(t, before["short"], func() { on(labnode.CutWire + labnode.PowerOff) })
	if want := "is being deleted (DeletionByTaintManager"; !strings.Contains(s.Moved.Why, want) {
		t.Errorf("session short: %+v, want %q", s.Moved, want)
	}
	callsFrom(t, "short", firstNode)
	s = twin.moves(t, before["twin"], func() {})
	if want := "its node may be lost"; !strings.Contains(s.Moved.Why, want) {
		t.Errorf("session twin: %+v, want %q", s.Moved, want)
	}
	callsFrom(t, "twin", firstNode)
	t.Run("stays", func(t *testing.T) {
		if got := put.next(t); got != "ECONNRESET" {
			t.Errorf("the old connection ends with %q, want ECONNRESET", got)
		}
		waitFor(t, "the session is lost", time.Minute, func() bool { return statuses(t)["put"].State == "lost" })
		if r := borrownet(t, "status", "put"); r.code == 0 || !strings.Contains(r.stdout+r.stderr, before["put"].Target.Pod+" is being deleted") {
			t.Errorf("status: %v", r)
		}
		if r := borrownet(t, "run", "--session", "put", "--", "curl", "-sS", "http://orders.shop/"); r.code == 0 {
			t.Errorf("a call works: %v", r)
		}
		put.cmd.Process.Signal(os.Interrupt) // it would try to connect for long
		put.cmd.Wait()
	})
	t.Run("out_of_service", func(t *testing.T) {
		waitFor(t, "the session looks for a pod", time.Minute, func() bool { return statuses(t)["set"].State == "reattaching" })
		if got := set.next(t); got != "ECONNRESET" {
			t.Errorf("the old connection ends with %q, want ECONNRESET", got)
		}
		fmt.Fprintln(asks.in)
		if got := asks.next(t); got != "ECONNREFUSED" {
			t.Errorf("who connects meanwhile gets %q, want ECONNREFUSED", got)
		}
		kubectl(t, "taint", "node", secondNode, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
		if got := set.next(t); got != "again set-0" {
			t.Errorf("the program says %q, want that it is connected again", got)
		}
		waitFor(t, "the terminal hears of it", time.Minute, func() bool {
			return strings.Contains(set.told.String(), "session set goes on at pod set-0 with a new agent: connections were reset")
		})
		set.end(t)
		fmt.Fprintln(asks.in)
		if got := asks.next(t); got != "connected" {
			t.Errorf("who connects afterwards gets %q", got)
		}
		asks.end(t)
		callsFrom(t, "set", firstNode)
	})
	t.Run("comes_back", func(t *testing.T) { nodeIsBack(t, on) })
}

// nodeIsBack gives the second node its power and network again.
func nodeIsBack(t *testing.T, on func(string) string) {
	on(labnode.MendWire + labnode.PowerOn)
	kubectl(t, "wait", "--for=condition=Ready", "node/"+secondNode, "--timeout=120s")
	kubectl(t, "taint", "node", secondNode, "node.kubernetes.io/out-of-service-")
	waitFor(t, "the node takes pods again", time.Minute, func() bool {
		return kubectl(t, "get", "node", secondNode, "-o", "jsonpath={.spec.taints}") == ""
	})
	waitFor(t, "no pod from before the loss is there", time.Minute, func() bool {
		return kubectl(t, "-n", outage, "get", "pods", "--field-selector=spec.nodeName="+secondNode, "-o", "name") == ""
	})
	if left := on(`grep -ls /second/ /proc/[0-9]*/cgroup | while read -r f; do cat ${f%cgroup}cmdline 2>/dev/null | tr '\0' ' ' | grep borrownet-agent || true; done`); left != "" {
		t.Errorf("agents from before the loss are on the node: %s", left)
	}
	onlyOn(t, secondNode, func() {
		before := statuses(t)
		w := startWaiter(t, "short")
		w.moves(t, before["short"], func() { kubectl(t, "-n", outage, "rollout", "restart", "deployment/short") })
	})
	callsFrom(t, "short", secondNode)
	noLeaks(t)
	mustBorrownet(t, "down", "--all", "--stop-agent")
	nothingLeft(t)
	waitFor(t, "no agent is left in the cluster", 30*time.Second, func() bool { return (&stack{namespaces: []string{outage}}).agents(t) == 0 })
}
