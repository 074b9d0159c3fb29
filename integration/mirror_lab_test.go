//go:build lab

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

// mirrored is the namespace of a pod whose traffic is copied. It enforces the baseline level, under which an agent gets
// NET_RAW by leaving it among what the runtime gives anyway.
const mirrored = "mirrored"

const mirroredPods = `apiVersion: v1
kind: Service
metadata: {name: front, namespace: %[1]s}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: front}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: %[1]s, labels: {app: front}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: front
    image: lab.local/api:1
    imagePullPolicy: IfNotPresent
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// loadPod is a pod that calls others of its namespace.
const loadPod = `---
apiVersion: v1
kind: Pod
metadata: {name: load, namespace: %[1]s, labels: {app: load}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: load
    image: lab.local/caller:1
    imagePullPolicy: IfNotPresent
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// makeMirrored makes the namespace and its pods.
func makeMirrored(t *testing.T, level string) {
	t.Helper()
	kubectl(t, "delete", "namespace", mirrored, "--ignore-not-found", "--timeout=180s")
	newNamespace(t, mirrored, "istio-injection: enabled, "+enforce+": "+level)
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(mirroredPods+loadPod, mirrored)))
	t.Cleanup(func() { kubectl(t, "delete", "namespace", mirrored, "--wait=false") })
	kubectl(t, "apply", "-f", writeFile(t, mustBorrownet(t, "rbac", "-n", mirrored, "--workloads", "--subject", "user:dev").stdout))
	awaitMirroredPods(t)
	if !meshed() { // there it would leave a connection of the sidecar's, which a mirror joins midway
		awaitServices(t, inLoad(mirrored), "http://front/")
	}
}

// awaitMirroredPods waits until all pods of the namespace are ready.
func awaitMirroredPods(t *testing.T) {
	t.Helper()
	argv := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", mirrored, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s"}
	if r := (command{argv: argv}).run(t); r.code != 0 {
		t.Fatalf("%v\n%s", r, kubectl(t, "-n", mirrored, "get", "pods,events"))
	}
}

// copyApp is a program of the laptop that gets copied requests. It compares each body with the stream that its id names.
type copyApp struct {
	port int

	mu    sync.Mutex
	got   map[uint64]int // by id, how often
	wrong []string
}

// listenForCopies serves until the test ends.
func listenForCopies(t *testing.T) *copyApp {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &copyApp{port: ln.Addr().(*net.TCPAddr).Port, got: map[uint64]int{}}
	srv := &http.Server{Handler: a}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	return a
}

func (a *copyApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	id, idErr := strconv.ParseUint(r.FormValue("id"), 10, 64)
	want, _ := io.ReadAll(stream.New(r.ContentLength, id)) // cannot fail
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil || idErr != nil || r.Method != http.MethodPost || !bytes.Equal(body, want) {
		a.wrong = append(a.wrong, fmt.Sprintf("%s %s: %d of %d bytes, %v", r.Method, r.URL, len(body), r.ContentLength, err))
		return
	}
	a.got[id]++
}

// count returns how many different requests came.
func (a *copyApp) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.got)
}

// check complains of what came wrong or twice.
func (a *copyApp) check(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range a.got {
		if n != 1 {
			t.Errorf("request %d came %d times", id, n)
		}
	}
	if len(a.wrong) > 0 {
		t.Errorf("%d requests that nobody sent, among them %q", len(a.wrong), a.wrong[0])
	}
}

// loadReport is what `caller load` prints.
type loadReport struct {
	Sent   int    `json:"sent"`
	Errors int    `json:"errors"`
	Error  string `json:"error"`
	Lost   int    `json:"lost"`
}

// callMirrored has the load pod send requests to another one.
func callMirrored(t *testing.T, pod, rate, length, size string) loadReport {
	t.Helper()
	return startCalls(t, mirrored, pod, rate, length, size)()
}

// callFromLoad has the load pod make one call.
func callFromLoad(t *testing.T, call ...string) result {
	t.Helper()
	argv := append([]string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}, inLoad(mirrored)...)
	return command{argv: append(argv, call...)}.run(t)
}

// startCalls has the load pod of a namespace send requests to host, until what it returns is called.
func startCalls(t *testing.T, namespace, host, rate, length, size string) (wait func() loadReport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	argv := append(append([]string{"--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}, inLoad(namespace)...), "load", "http://"+host+"/sha256", rate, length, "0s", size)
	cmd := exec.CommandContext(ctx, "kubectl", argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() loadReport {
		t.Helper()
		defer cancel()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("caller load: %v\n%s", err, &stderr)
		}
		var report loadReport
		decode(t, stdout.String(), &report)
		return report
	}
}

// mirrorState is the part of a status that tells of the mirror.
type mirrorState struct {
	Mirror struct {
		Running bool `json:"running"`
		Problem *struct {
			Reason, Hint string
		} `json:"problem"`
		Starts  int `json:"starts"`
		Capture struct {
			Interfaces []string `json:"interfaces"`
			Ports      []struct {
				Port          int
				Loopback, Pod bool
				Why           string
			} `json:"ports"`
			Dropped, Unreadable, Packets, Bytes, LostFlows, LostBytes uint64
		} `json:"capture"`
		Replay struct {
			Gaps     map[string]uint64 `json:"gaps"`
			Requests struct {
				Seen, Delivered, Probes, Refused, Broken, Slow, Cut uint64
			} `json:"requests"`
		} `json:"replay"`
	} `json:"mirror"`
	text string
}

// lost sums up all that says that a request is missing.
func (s mirrorState) lost() uint64 {
	r := s.Mirror.Replay.Requests
	return s.missed() + r.Refused + r.Broken + r.Slow + r.Cut
}

// missed sums up what says that packets are missing. On a machine with much else to do the kernel's ring overflows.
func (s mirrorState) missed() (n uint64) {
	c := s.Mirror.Capture
	n = c.Dropped + c.LostFlows + c.Unreadable
	for _, gap := range s.Mirror.Replay.Gaps {
		n += gap
	}
	return n
}

// awaitCopies waits until app has all requests, or no more come and the session's counters say that some are lost.
func awaitCopies(t *testing.T, session string, app *copyApp, sent int) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("%d of %d requests were copied: %s", app.count(), sent, mirrorOf(t, session).text)
		}
	}()
	last, since := -1, time.Now()
	waitFor(t, "every request is copied or counted", patience, func() bool {
		n := app.count()
		if n != last {
			last, since = n, time.Now()
		}
		return n >= sent || time.Since(since) > 5*time.Second && mirrorOf(t, session).lost() > 0
	})
	app.check(t)
	if n := app.count(); n < sent {
		s := mirrorOf(t, session)
		t.Logf("%d of %d requests were copied, the rest is counted as lost: %s", n, sent, s.text)
	}
}

// accounts reports whether the counters explain, to the request, how many of those that were sent have come. Where
// packets are missing it is not known in how many requests.
func (s mirrorState) accounts(sent, came int) bool {
	r := s.Mirror.Replay.Requests
	failed := r.Refused + r.Broken + r.Slow + r.Cut
	if r.Seen-r.Probes != r.Delivered+failed || uint64(came) < r.Delivered || uint64(came) > r.Delivered+r.Broken {
		return false
	}
	return s.missed() > 0 || r.Seen-r.Probes == uint64(sent)
}

// wantPlace wants port 8080 to be captured where its sidecar hands on what it has decrypted, if it has one, because the
// pod's spec says so, and connections have not shown it to be wrong.
func (s mirrorState) wantPlace(t *testing.T, behindSidecar bool) {
	t.Helper()
	if p := s.Mirror.Capture.Ports; len(p) != 1 || p[0].Port != 8080 || p[0].Loopback != behindSidecar || p[0].Pod == behindSidecar || p[0].Why != "" {
		t.Errorf("captured on %+v, behind a sidecar: %v", p, behindSidecar)
	}
}

func mirrorOf(t *testing.T, session string) mirrorState {
	t.Helper()
	r := borrownet(t, "status", session, "-o", "json")
	var s mirrorState
	decode(t, r.stdout, &s)
	s.text = r.stdout
	return s
}

// upMirror opens a session that copies port 8080 of a pod to app.
func upMirror(t *testing.T, pod, session string, app *copyApp) result {
	t.Helper()
	r := mustBorrownet(t, "up", "-d", "-n", mirrored, "--pod", pod, "--session", session, "--mirror", fmt.Sprintf("8080:%d", app.port))
	t.Cleanup(func() { borrownet(t, "down", session, "--stop-agent") })
	return r
}

// meshed reports whether the lab has a mesh.
func meshed() bool { return os.Getenv("LAB_MESH") != "" }

// TestMirror copies what a pod gets to programs of the laptop.
func TestMirror(t *testing.T) {
	makeMirrored(t, "baseline")
	t.Run("plan", mirrorPlan)
	t.Run("every_request", func(t *testing.T) { mirrorEveryRequest(t, "front") })
	if !meshed() { // a call to a pod's own address is none of the mesh's, and STRICT refuses it
		t.Run("ipv6", mirrorIPv6)
	}
	t.Run("least_privilege", mirrorLeastPrivilege)
	t.Run("bulk", mirrorBulk)
	t.Run("two_developers", mirrorForTwo)
	t.Run("protocols", mirrorProtocols)
	t.Run("peers", mirrorPeers) // whose first call leaves a connection that a mirror joins midway
	t.Run("not_felt", func(t *testing.T) { mirrorIsNotFelt(t, "front") })
	if meshed() {
		t.Run("classic_sidecar", mirrorClassicSidecar)
	}
}

// mirrorClassicSidecar: it makes no difference that a pod's sidecar is one of its containers, and no init container.
func mirrorClassicSidecar(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(variantPod, "classic", mirrored, classic)))
	awaitMirroredPods(t)
	if containers, _ := (variant{name: "classic"}).shape(t, mirrored); containers != "istio-validation | classic istio-proxy" {
		t.Fatalf("the pod is %q", containers)
	}
	// A call would leave a connection that the mirror joins midway.
	waitFor(t, "the callers' sidecar knows the pod", patience, func() bool {
		said := kubectl(t, "-n", mirrored, "exec", "load", "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "clusters")
		for line := range strings.Lines(said) {
			if strings.HasPrefix(line, "outbound|80||classic."+mirrored+".svc") && strings.HasSuffix(strings.TrimSpace(line), "::health_flags::healthy") {
				return true
			}
		}
		return false
	})
	t.Run("every_request", func(t *testing.T) { mirrorEveryRequest(t, "classic") })
	t.Run("not_felt", func(t *testing.T) { mirrorIsNotFelt(t, "classic") })
}

// mirrorPeers: the pod sees a caller, and what that sends, as it does when nothing is copied.
func mirrorPeers(t *testing.T) {
	look := func() seen {
		r := callFromLoad(t, "get", "http://front/peers")
		_, body, ok := strings.Cut(r.stdout, "{")
		if r.code != 0 || !ok {
			t.Fatal(r)
		}
		var s seen
		decode(t, "{"+body, &s)
		s.Remote, _, _ = net.SplitHostPort(s.Remote) // the port is the connection's
		for name := range s.Headers {
			s.Headers[name] = nil // some are the request's
		}
		return s
	}
	before := look()
	upMirror(t, "front", "front", &copyApp{port: freePort(t)})
	if s := mirrorOf(t, "front"); !s.Mirror.Running {
		t.Fatalf("status: %s", s.text)
	}
	if diff := cmp.Diff(before, look()); diff != "" || before.Remote == "" {
		t.Errorf("front sees (-before +while it is mirrored):\n%s", diff)
	}
}

// mirrorEveryRequest: each request is copied, once, with every byte, while the callers of the pod notice nothing. It is
// captured where it is plain: behind the sidecar if there is one.
func mirrorEveryRequest(t *testing.T, pod string) {
	app := listenForCopies(t)
	said := upMirror(t, pod, pod, app)
	if !strings.Contains(said.stderr, "acts on copied requests") {
		t.Errorf("up does not say what mirroring does: %v", said)
	}
	rate := "500"
	if meshed() {
		rate = "150"
	}
	live := callMirrored(t, pod, rate, "5s", "3000")
	if live.Errors > 0 || live.Lost > 0 {
		t.Errorf("the live pod's callers: %+v", live)
	}
	awaitCopies(t, pod, app, live.Sent)
	var s mirrorState
	waitFor(t, "the counters come, which they do once a second", patience, func() bool {
		s = mirrorOf(t, pod)
		return s.Mirror.Capture.Bytes >= uint64(live.Sent)*3000 || s.missed() > 0 // what was dropped is not among the bytes
	})
	waitFor(t, "every request that was seen has an outcome, and what was delivered is here", patience, func() bool {
		s = mirrorOf(t, pod)
		return s.accounts(live.Sent, app.count())
	})
	if m := s.Mirror; !m.Running || m.Problem != nil || m.Starts != 1 {
		t.Errorf("status: %s", s.text)
	}
	s.wantPlace(t, meshed())
	if text := mustBorrownet(t, "status", pod).stdout; !strings.Contains(text, "captured on") {
		t.Errorf("status does not tell of the mirror:\n%s", text)
	}
}

// mirrorIPv6 copies what comes to the pod's IPv6 address.
func mirrorIPv6(t *testing.T) {
	var front pod
	decode(t, kubectl(t, "-n", mirrored, "get", "pod", "front", "-o", "json"), &front)
	host := ""
	for _, ip := range front.Status.PodIPs {
		if strings.Contains(ip.IP, ":") {
			host = net.JoinHostPort(ip.IP, "8080")
		}
	}
	if host == "" {
		t.Fatalf("the pod has no IPv6 address: %v", front.Status.PodIPs)
	}
	app := listenForCopies(t)
	upMirror(t, "front", "front", app)
	live := startCalls(t, mirrored, host, "50", "1s", "3000")()
	if live.Errors > 0 || live.Lost > 0 {
		t.Errorf("the live pod's callers: %+v", live)
	}
	awaitCopies(t, "front", app, live.Sent)
}

// mirrorLeastPrivilege: the agent that mirrors has no capability, and can gain none but NET_RAW.
func mirrorLeastPrivilege(t *testing.T) {
	upMirror(t, "front", "front", listenForCopies(t))
	if s := mirrorOf(t, "front"); !s.Mirror.Running {
		t.Fatalf("status: %s", s.text)
	}
	node := onNode(t)
	// That of this pod is the only one which may gain anything.
	status := node(`for p in $(grep -lzs '^/borrownet-agent' /proc/[0-9]*/cmdline | cut -d/ -f3); do if ! grep -q 'CapBnd:[[:space:]]*0*$' /proc/$p/status; then cat /proc/$p/status; fi; done`)
	got := map[string]string{}
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		got[key] = strings.TrimSpace(value)
	}
	const none, netRaw = "0000000000000000", "0000000000002000"
	for key, want := range map[string]string{"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none, "CapBnd": netRaw, "Seccomp": "2"} {
		if got[key] != want {
			t.Errorf("the agent has %s %q, want %s", key, got[key], want)
		}
	}
	if uid := strings.Fields(got["Uid"]); len(uid) == 0 || uid[0] == "0" {
		t.Errorf("the agent's uid is %q", got["Uid"])
	}
}

// mirrorBulk copies uploads of many megabytes.
func mirrorBulk(t *testing.T) {
	app := listenForCopies(t)
	upMirror(t, "front", "front", app)
	live := callMirrored(t, "front", "2", "2s", fmt.Sprint(20<<20))
	if live.Errors > 0 || live.Lost > 0 {
		t.Errorf("the live pod's callers: %+v", live)
	}
	lost := func() uint64 {
		c := mirrorOf(t, "front").Mirror.Capture
		return c.LostFlows + c.Dropped
	}
	waitFor(t, "every upload was copied, or counted as lost", patience, func() bool { return app.count() >= live.Sent || lost() > 0 })
	if n := app.count(); n < live.Sent {
		t.Logf("%d of %d uploads were copied: %s", n, live.Sent, mirrorOf(t, "front").text)
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	for _, wrong := range app.wrong {
		if !strings.Contains(wrong, "unexpected EOF") && !strings.Contains(wrong, "reset by peer") { // one that is lost ends
			t.Error(wrong)
		}
	}
}

// mirrorForTwo: two developers copy the same port of the same pod at once, and both get everything.
func mirrorForTwo(t *testing.T) {
	first, second := listenForCopies(t), listenForCopies(t)
	upMirror(t, "front", "first", first)
	upMirror(t, "front", "second", second)
	live := callMirrored(t, "front", "50", "3s", "500")
	if live.Errors > 0 || live.Lost > 0 {
		t.Errorf("the live pod's callers: %+v", live)
	}
	for session, app := range map[string]*copyApp{"first": first, "second": second} {
		awaitCopies(t, session, app, live.Sent)
	}
}

// TestMirrorRefused: where a policy forbids NET_RAW that is said, and the rest of the session works.
func TestMirrorRefused(t *testing.T) {
	r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "api", "--mirror", "8080:3000")
	t.Cleanup(func() { borrownet(t, "down", "--all", "--stop-agent") })
	if !strings.Contains(r.stderr, "warning: not mirrored: ") || !strings.Contains(r.stderr, `PodSecurity "restricted`) || !strings.Contains(r.stderr, "hint: mirroring takes CAP_NET_RAW") {
		t.Errorf("up: %v", r)
	}
	probe(t, time.Minute, "get", "http://orders/")
	if s := mirrorOf(t, "api"); s.Mirror.Running || s.Mirror.Problem == nil || !strings.Contains(s.Mirror.Problem.Reason, "PodSecurity") {
		t.Errorf("status: %s", s.text)
	}
	dry := mustBorrownet(t, "up", "--dry-run", "-n", "shop", "--pod", "api", "--mirror", "8080:3000")
	if !strings.Contains(dry.stdout, "# not mirrored: ") {
		t.Errorf("dry run: %v", dry)
	}
}

// mirrorPlan: a dry run shows what would be asked for, by the means that the namespace's level allows.
func mirrorPlan(t *testing.T) {
	level := func(level string) { kubectl(t, "label", "namespace", mirrored, "--overwrite", enforce+"="+level) }
	t.Cleanup(func() { level("baseline") })
	for _, tt := range []struct{ level, want string }{{"privileged", `"add":["NET_RAW"]`}, {"baseline", `"drop":["AUDIT_WRITE",`}} {
		t.Run(tt.level, func(t *testing.T) {
			level(tt.level)
			dry := mustBorrownet(t, "up", "--dry-run", "-n", mirrored, "--pod", "front", "--mirror", "8080:3000")
			var pod struct {
				Spec struct {
					EphemeralContainers []struct {
						SecurityContext struct {
							Capabilities json.RawMessage `json:"capabilities"`
						} `json:"securityContext"`
					} `json:"ephemeralContainers"`
				} `json:"spec"`
			}
			decode(t, kubectl(t, "create", "--dry-run=client", "--validate=false", "-o", "json", "-f", writeFile(t, dry.stdout)), &pod)
			var got bytes.Buffer
			if err := json.Compact(&got, pod.Spec.EphemeralContainers[0].SecurityContext.Capabilities); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got.String(), tt.want) || !strings.Contains(dry.stdout, "# port 8080 of the pod would be copied") {
				t.Errorf("capabilities %s, want %s\n%s", &got, tt.want, dry.stdout)
			}
		})
	}
}
