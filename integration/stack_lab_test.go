//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stack is a stack of borrowed services, svc-0 and so on in each of its namespaces.
// Session sN-S is svc-S of namespace N.
type stack struct {
	file       string
	namespaces []string // NAME-0 and so on
	sessions   []string
}

// makeStack makes the namespaces, their workloads and the Roles of the laptop's user, and
// the file that describes the sessions.
func makeStack(t *testing.T, name string, namespaces, services int) *stack {
	t.Helper()
	st := &stack{}
	var objects, file strings.Builder
	fmt.Fprintf(&file, "sessions:\n")
	for n := range namespaces {
		namespace := fmt.Sprintf("%s-%d", name, n)
		st.namespaces = append(st.namespaces, namespace)
		fmt.Fprintf(&objects, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", namespace)
		for s := range services {
			fmt.Fprintf(&objects, `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: svc-%[2]d, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: svc-%[2]d}}
  template:
    metadata: {labels: {app: svc-%[2]d}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
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
metadata: {name: svc-%[2]d, namespace: %[1]s}
spec:
  selector: {app: svc-%[2]d}
  ports: [{port: 80, targetPort: 8080}]
`, namespace, s)
			session := fmt.Sprintf("s%d-%d", n, s)
			st.sessions = append(st.sessions, session)
			fmt.Fprintf(&file, "  %s: {pod: deploy/svc-%d, namespace: %s, publish: [none]}\n", session, s, namespace)
		}
	}
	for _, n := range st.namespaces { // of an earlier test of that name
		kubectl(t, "delete", "namespace", n, "--ignore-not-found", "--timeout=180s")
	}
	kubectl(t, "apply", "-f", writeFile(t, objects.String()))
	t.Cleanup(func() {
		borrownet(t, "down", "--all")
		for _, n := range st.namespaces {
			kubectl(t, "delete", "namespace", n, "--wait=false")
		}
	})
	for _, n := range st.namespaces {
		role := mustBorrownet(t, "rbac", "-n", n, "--workloads", "--subject", "user:dev").stdout
		kubectl(t, "apply", "-f", writeFile(t, role))
	}
	for _, n := range st.namespaces {
		kubectl(t, "-n", n, "wait", "--for=condition=Available", "deployments", "--all", "--timeout=180s")
		awaitServices(t, fromAPI, "http://svc-0."+n+"/")
	}
	st.file = filepath.Join(t.TempDir(), "borrownet.yaml")
	if err := os.WriteFile(st.file, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return st
}

// sessionStatus is what `status -o json` says of a session, as far as the tests need it.
type sessionStatus struct {
	Session string
	State   string
	Target  struct {
		Namespace, Pod string
		PodIPs         []string
	}
	Moved *struct{ From, To, Why string }
}

func statuses(t *testing.T) map[string]sessionStatus {
	t.Helper()
	var list []sessionStatus
	decode(t, borrownet(t, "status", "-o", "json").stdout, &list)
	out := map[string]sessionStatus{}
	for _, s := range list {
		out[s.Session] = s
	}
	return out
}

// sees is what the service at url sees of a call from a session.
func sees(t *testing.T, session, url string) seen {
	t.Helper()
	var s seen
	decode(t, mustBorrownet(t, "run", "--session", session, "--", "curl", "-sS", "--max-time", "60", url).stdout, &s)
	return s
}

// from reports whether the caller that was seen is the session's pod.
func (s sessionStatus) from(remote string) bool {
	for _, ip := range s.Target.PodIPs {
		if strings.HasPrefix(remote, ip+":") || strings.HasPrefix(remote, "["+ip+"]:") {
			return true
		}
	}
	return false
}

// TestStack sets a stack up, has a call go through services of three namespaces, two of
// them local, has pods go under sessions, and takes the stack down.
func TestStack(t *testing.T) { tryStack(t, 3, 1) }

// TestSoakStack is TestStack with twenty sessions over five namespaces.
func TestSoakStack(t *testing.T) { tryStack(t, 5, 4) }

func tryStack(t *testing.T, namespaces, services int) {
	st := makeStack(t, "stack", namespaces, services)
	begun := time.Now()
	r := mustBorrownet(t, "up", "-f", st.file, "-d")
	took := time.Since(begun)
	t.Logf("%d sessions were up after %v", len(st.sessions), took.Round(100*time.Millisecond))
	if want := fmt.Sprintf("%[1]d of %[1]d sessions are ready", len(st.sessions)); !strings.Contains(r.stderr, want) {
		t.Errorf("up does not say %q: %v", want, r)
	}
	if again := mustBorrownet(t, "up", "-f", st.file, "-d"); strings.Count(again.stderr, "is up already") != len(st.sessions) {
		t.Errorf("a second up: %v", again)
	}
	list := statuses(t)
	for i, name := range st.sessions {
		s := list[name]
		if s.State != "ready" || s.Moved != nil {
			t.Errorf("session %s: %+v", name, s)
		}
		if i%4 == 0 { // one of each namespace
			other := "http://svc-0.stack-1/"
			if s.Target.Namespace == st.namespaces[1] {
				other = "http://svc-0.stack-2/" // who calls himself is masqueraded
			}
			if got := sees(t, name, other); !s.from(got.Remote) {
				t.Errorf("session %s was seen as %s, want %v", name, got.Remote, s.Target.PodIPs)
			}
		}
	}
	size := residentMiB(t, daemonPID(t))
	t.Logf("the daemon has %d MiB for %d sessions", size, len(st.sessions))
	if limit := 60 + 10*len(st.sessions); size > limit {
		t.Errorf("want %d MiB at most", limit)
	}
	t.Run("chain", st.chain)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) { st.podGoes(t, way) })
	}
	noLeaks(t)
	mustBorrownet(t, "down", "-f", st.file, "--stop-agent")
	waitFor(t, "nothing is left on the laptop", patience, func() bool { return len(leftovers(t)) == 0 })
	waitFor(t, "no agent is left in the cluster", patience, func() bool { return st.agents(t) == 0 })
}

// agents counts those that run in the stack's pods.
func (st *stack) agents(t *testing.T) int {
	t.Helper()
	n := 0
	for _, namespace := range st.namespaces {
		var list struct {
			Items []pod `json:"items"`
		}
		decode(t, kubectl(t, "-n", namespace, "get", "pods", "-o", "json"), &list)
		for _, p := range list.Items {
			n += p.running()
		}
	}
	return n
}

// residentMiB is what a process has in memory.
func residentMiB(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// relayProgram is a copy of a service: it answers a request with what the next service
// says of its own call, and who it is itself.
const relayProgram = `
import http.server, os, sys, urllib.request
class Relay(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = urllib.request.urlopen(sys.argv[2], timeout=20).read()
        self.send_response(200)
        self.send_header("X-Via", os.environ["BORROWNET_SESSION"] + " " + self.headers.get("X-Via", ""))
        self.end_headers()
        self.wfile.write(b'{"next":' + body + b',"me":"' + os.environ["BORROWNET_SESSION"].encode() + b'"}')
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Relay).serve_forever()
`

// chain has session s0-0 call svc-0.stack-1, which is redirected to a copy in session
// s1-0, which calls svc-0.stack-2, redirected to a copy in session s2-0, which calls the
// real svc-0.stack-0: three hops, each with its own identity.
func (st *stack) chain(t *testing.T) {
	script := writeFile(t, relayProgram)
	hop := func(session, redirect, listen, next string) {
		file := filepath.Join(t.TempDir(), "borrownet.yaml")
		var n int
		fmt.Sscanf(session, "s%d-0", &n)
		text := fmt.Sprintf("redirect: {%s}\nsessions:\n  %s: {pod: deploy/svc-0, namespace: %s, publish: [none], command: [python3, %s, %q, %q]}\n",
			redirect, session, st.namespaces[n], script, listen, next)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		mustBorrownet(t, "down", session)
		mustBorrownet(t, "up", "-f", file, "-d")
		if listen == "" {
			return
		}
		cmd := exec.Command("borrownet", "run", "-f", file, session)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() })
	}
	hop("s2-0", "", "13002", "http://svc-0.stack-0/")
	hop("s1-0", "svc-0.stack-2: ':13002'", "13001", "http://svc-0.stack-2/")
	hop("s0-0", "svc-0.stack-1: ':13001'", "", "")
	list := statuses(t)
	var text string
	waitFor(t, "the copies answer", patience, func() bool {
		r := borrownet(t, "run", "--session", "s0-0", "--", "curl", "-sSf", "--max-time", "30", "http://svc-0.stack-1/")
		text = r.stdout
		return r.code == 0
	})
	var answer struct {
		Me   string
		Next struct {
			Me   string
			Next seen
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if answer.Me != "s1-0" || answer.Next.Me != "s2-0" || !list["s2-0"].from(answer.Next.Next.Remote) {
		t.Errorf("the call went %+v, want s1-0, s2-0, then svc-0.stack-0 called from %v", answer, list["s2-0"].Target.PodIPs)
	}
	for session, url := range map[string]string{"s0-0": "http://svc-0.stack-2/", "s1-0": "http://svc-0.stack-0/"} {
		if got := sees(t, session, url); !list[session].from(got.Remote) {
			t.Errorf("session %s was seen as %s, want %v", session, got.Remote, list[session].Target.PodIPs)
		}
	}
}
