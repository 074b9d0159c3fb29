//go:build lab

package integration

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

const replicatedPods = `apiVersion: v1
kind: Namespace
metadata: {name: replicated}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: replicated}
spec:
  replicas: 2
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: front
        image: lab.local/api:1
        imagePullPolicy: IfNotPresent
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// counter is a program of the laptop that counts requests by their path.
type counter struct {
	mu  sync.Mutex
	got map[string]int
}

func (c *counter) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got[r.URL.Path]++
}

func (c *counter) counts() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.got)
}

// TestMirrorAllReplicas: what either of two replicas gets is copied, once.
func TestMirrorAllReplicas(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, replicatedPods))
	t.Cleanup(func() { kubectl(t, "delete", "namespace", "replicated", "--wait=false") })
	kubectl(t, "apply", "-f", writeFile(t, mustBorrownet(t, "rbac", "-n", "replicated", "--workloads", "--subject", "user:dev").stdout))
	kubectl(t, "-n", "replicated", "wait", "--for=condition=Available", "deployment/front", "--timeout=180s")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{got: map[string]int{}}
	srv := &http.Server{Handler: c}
	go srv.Serve(ln) // ends with srv
	t.Cleanup(func() { srv.Close() })
	mirror := fmt.Sprintf("8080:%d", ln.Addr().(*net.TCPAddr).Port)

	t.Cleanup(func() { borrownet(t, "down", "--all", "--stop-agent") })
	r := mustBorrownet(t, "up", "-d", "-n", "replicated", "--pod", "deploy/front", "--mirror", mirror, "--all-replicas")
	if !strings.Contains(r.stderr, "2 of 2 sessions are ready") {
		t.Errorf("up: %v", r)
	}
	var list struct {
		Items []pod `json:"items"`
	}
	decode(t, kubectl(t, "-n", "replicated", "get", "pods", "-o", "json"), &list)
	api := inAPI(t)
	for n, p := range list.Items {
		if len(p.Spec.EphemeralContainers) != 1 {
			t.Errorf("pod %s has %d agents, want 1", p.Metadata.Name, len(p.Spec.EphemeralContainers))
		}
		for i := range 3 {
			url := fmt.Sprintf("http://%s/replica-%d/%d", net.JoinHostPort(p.Status.PodIP, "8080"), n, i)
			if r := api.inside(t, "get", url); r.code != 0 {
				t.Fatal(r)
			}
		}
	}
	const want = "map[/replica-0/0:1 /replica-0/1:1 /replica-0/2:1 /replica-1/0:1 /replica-1/1:1 /replica-1/2:1]"
	waitFor(t, "each request is copied", patience, func() bool { return strings.Count(c.counts(), "replica") == 6 })
	if got := c.counts(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	again := mustBorrownet(t, "up", "-d", "-n", "replicated", "--pod", "deploy/front", "--mirror", mirror, "--all-replicas")
	if strings.Count(again.stderr, "is up already") != 2 {
		t.Errorf("a second up: %v", again)
	}
	for name, s := range statuses(t) {
		if !strings.HasPrefix(name, "front-") || s.State != "ready" || !strings.HasSuffix(s.Target.Pod, strings.TrimPrefix(name, "front")) {
			t.Errorf("session %s: %+v", name, s)
		}
	}
}
