//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// meshStatus is what `status -o json` says of the mesh.
type meshStatus struct {
	Mesh *struct {
		Proxy    string `json:"proxy"`
		Path     string `json:"path"`
		Probe    string `json:"probe"`
		Listener string `json:"listener"`
		Identity string `json:"identity"`
		Expires  time.Time
		Problem  *struct {
			Reason string `json:"reason"`
			Hint   string `json:"hint"`
		} `json:"problem"`
	} `json:"mesh"`
}

// wantMesh checks that status shows the session's identity, and that a probe went
// through the sidecar.
func wantMesh(t *testing.T, session, identity string) {
	t.Helper()
	var st meshStatus
	decode(t, mustBorrownet(t, "status", session, "-o", "json").stdout, &st)
	m := st.Mesh
	switch {
	case m == nil:
		t.Errorf("%s: status says nothing of the mesh", session)
	case m.Proxy != "istio-proxy" || m.Path != "proxy" || m.Identity != identity || m.Problem != nil,
		m.Listener != "127.0.0.1:15001" && m.Listener != "[::1]:15001":
		t.Errorf("%s: mesh is %+v, want %s by istio-proxy", session, *m, identity)
	case time.Until(m.Expires) < time.Minute:
		t.Errorf("%s: the certificate expires at %v", session, m.Expires)
	}
}

// TestMeshIdentityIsShown: up and status say who one is for the mesh, and what
// they say is what peers see.
func TestMeshIdentityIsShown(t *testing.T) {
	needMesh(t)
	const through = "went through istio-proxy at 127.0.0.1:15001"
	for _, app := range []string{"api", "api-v4", "web"} {
		account := spiffe(strings.TrimSuffix(app, "-v4"))
		r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", app)
		t.Cleanup(func() { borrownet(t, "down", app) })
		if !strings.Contains(r.stderr, "identity "+account+", mesh a probe to ") || !strings.Contains(r.stderr, through) || strings.Contains(r.stderr, "warning") {
			t.Errorf("up of %s: %v", app, r)
		}
		text := mustBorrownet(t, "status", app)
		if !strings.Contains(text.stdout, account) || !strings.Contains(text.stdout, through) || strings.Contains(text.stderr, "warning") {
			t.Errorf("status of %s: %v", app, text)
		}
		wantMesh(t, app, account)
	}
	r := mustBorrownet(t, "run", "--session", "web", "--", "curl", "-sS", "--max-time", "20", "http://orders/")
	wantIdentity(t, r.stdout, "web")
}

// TestMeshBypassIsSeen: a session that goes past the sidecar is told so, and why.
func TestMeshBypassIsSeen(t *testing.T) {
	needMesh(t)
	t.Run("proxys_user", func(t *testing.T) { forced(t, "runAsUser", "the agent runs as uid 1337") })
	t.Run("proxys_group", func(t *testing.T) { forced(t, "runAsGroup", "the agent runs in group 1337") })
	t.Run("excluded", excludedFromMesh)
	t.Run("no_sidecar", outOfMesh)
}

// wantBypass checks that status warns of a bypass for this reason.
func wantBypass(t *testing.T, session, reason string) {
	t.Helper()
	var st meshStatus
	r := mustBorrownet(t, "status", session, "-o", "json")
	decode(t, r.stdout, &st)
	m := st.Mesh
	if m == nil || m.Path != "direct" || m.Listener != "" || m.Problem == nil || !strings.Contains(m.Problem.Reason, reason) || m.Problem.Hint == "" {
		t.Errorf("mesh is %+v of %s, want a bypass: %s", m, r.stdout, reason)
	}
	text := mustBorrownet(t, "status", session)
	if !strings.Contains(text.stdout, "BYPASSED") || !strings.Contains(text.stderr, "warning: go through the mesh of pod") || !strings.Contains(text.stderr, reason) {
		t.Errorf("status, want a warning of %q: %v", reason, text)
	}
}

// forced gives a session an agent with the id of the proxy in one respect, which
// borrownet itself never does: a copy of its container, for up to find.
func forced(t *testing.T, field, reason string) {
	const app = "web"
	mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", app)
	mustBorrownet(t, "down", app)
	name := podOf(t, app).Metadata.Name
	var spec struct {
		Containers []map[string]any `json:"ephemeralContainers"`
	}
	decode(t, kubectl(t, "-n", "shop", "get", "pod", name, "-o", "jsonpath={.spec}"), &spec)
	agent := spec.Containers[len(spec.Containers)-1]
	agent["name"] = "borrownet-agent-" + strings.ToLower(field)
	agent["securityContext"].(map[string]any)[field] = 1337
	// The newest of the agents that fit is taken, so it has to be the last.
	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/spec/ephemeralContainers/-", "value": agent}})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", "shop", "patch", "pod", name, "--subresource", "ephemeralcontainers", "--type", "json", "-p", string(patch))
	r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", app)
	t.Cleanup(func() { mustBorrownet(t, "down", app, "--stop-agent") })
	if !strings.Contains(r.stderr, "(reused)") || !strings.Contains(r.stderr, agent["name"].(string)) {
		t.Fatalf("up does not take the forced agent: %v", r)
	}
	if !strings.Contains(r.stderr, "warning: go through the mesh of pod shop/"+name) || !strings.Contains(r.stderr, reason) || !strings.Contains(r.stderr, "--stop-agent") {
		t.Errorf("up, want a warning of %q: %v", reason, r)
	}
	wantBypass(t, app, reason)
	// What it warns of is so: STRICT services refuse plaintext.
	get := borrownet(t, "run", "--session", app, "--", "curl", "-sS", "--max-time", "20", "http://orders/")
	if get.code == 0 {
		t.Errorf("a call past the sidecar succeeds: %v", get)
	}
}

// excludedFromMesh borrows a pod that takes its name server's network out of the
// mesh.
func excludedFromMesh(t *testing.T) {
	const ranges = "10.96.0.0/16,fd10:96::/112"
	v := variant{name: "excluding", annotations: `traffic.sidecar.istio.io/excludeOutboundIPRanges: "` + ranges + `"`}
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(variantPod, v.name, "shop", v.annotations)))
	t.Cleanup(func() {
		kubectl(t, "-n", "shop", "delete", "pod/"+v.name, "serviceaccount/"+v.name, "--wait=false")
	})
	argv := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "shop", "wait", "--for=condition=Ready", "pod/" + v.name, "--timeout=120s"}
	if r := (command{argv: argv, timeout: 3 * time.Minute}).run(t); r.code != 0 {
		t.Fatal(r)
	}
	borrow(t, v, "shop")
	wantBypass(t, v.name, `excludeOutboundIPRanges: "`+ranges+`"`)
}

// outOfMesh borrows a pod that is in no mesh, of which nobody need be warned, and
// one that asks for a sidecar and has none.
func outOfMesh(t *testing.T) {
	pod := strings.TrimSpace(kubectl(t, "-n", "outside", "get", "pods", "-l", "app=caller", "-o", "jsonpath={.items[0].metadata.name}"))
	role := mustBorrownet(t, "rbac", "-n", "outside", "--workloads", "--subject", "user:dev").stdout
	kubectl(t, "apply", "-f", writeFile(t, role))
	r := mustBorrownet(t, "up", "-d", "-n", "outside", "--pod", pod, "--session", "outside")
	t.Cleanup(func() { mustBorrownet(t, "down", "outside") })
	if !strings.Contains(r.stderr, "identity none but the pod's address, mesh none: the pod has no sidecar") || strings.Contains(r.stderr, "warning") {
		t.Errorf("up: %v", r)
	}
	kubectl(t, "-n", "outside", "label", "pod", pod, "sidecar.istio.io/inject=true")
	t.Cleanup(func() { kubectl(t, "-n", "outside", "label", "pod", pod, "sidecar.istio.io/inject-") })
	r = mustBorrownet(t, "up", "-d", "-n", "outside", "--pod", pod, "--session", "asking")
	t.Cleanup(func() { mustBorrownet(t, "down", "asking") })
	if !strings.Contains(r.stderr, "the pod asks for a sidecar (sidecar.istio.io/inject=true) and has none") {
		t.Errorf("up of a pod that asks for a sidecar: %v", r)
	}
}

// TestMeshAdminIsDenied: what answers any process of the pod without asking who
// it is does not answer programs of a session, over either family.
func TestMeshAdminIsDenied(t *testing.T) {
	needMesh(t)
	up(t, "api")
	pod := podOf(t, "api")
	// The pod's addresses are the session's own: nobody listens there.
	var own []string
	for _, ip := range pod.Status.PodIPs {
		for _, port := range []string{"15000", "15020", "15021", "15090"} {
			own = append(own, net.JoinHostPort(ip.IP, port))
		}
	}
	for line := range strings.Lines(probe(t, time.Minute, "dial", own...)) {
		if !strings.Contains(line, " ECONNREFUSED ") {
			t.Errorf("the pod's own address, want a refusal: %s", line)
		}
	}
	// The node by its address and as the pods' gateway, and what clouds have there.
	denied := []string{"10.77.0.1:10250", "10.244.0.1:10250", "[fd10:244::1]:10250", "169.254.169.254:80", "100.100.100.200:80", "[fd00:ec2::254]:80"}
	for line := range strings.Lines(probe(t, time.Minute, "dial", denied...)) {
		if f := strings.Fields(line); f[1] != "EACCES" && f[1] != "EHOSTUNREACH" { // of ICMPv6, of ICMP
			t.Errorf("%s: %s, want it to be prohibited", f[0], f[1])
		}
	}
	for _, to := range denied {
		waitFor(t, "the agent's log says that it has denied "+to, patience, func() bool { // the runtime copies it by and by
			log := kubectl(t, "-n", "shop", "logs", pod.Metadata.Name, "-c", pod.Spec.EphemeralContainers[len(pod.Spec.EphemeralContainers)-1].Name)
			return strings.Contains(log, `"dst":"`+to+`","reason":`)
		})
	}
	// The control: the pod itself is answered.
	self := place{namespace: "shop", pod: pod.Metadata.Name, container: "api"}
	if r := self.inside(t, "get", "http://"+pod.Status.PodIP+":15020/stats/prometheus"); r.code != 0 {
		t.Errorf("the pod itself gets no answer of port 15020: %v", r)
	}
}
