//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// spiffe is the mesh identity of a ServiceAccount in namespace shop.
func spiffe(account string) string { return "spiffe://cluster.local/ns/shop/sa/" + account }

// needMesh skips a test where namespace shop is in no mesh.
func needMesh(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB_MESH") == "" {
		t.Skip("needs a meshed lab (make test-mesh)")
	}
}

// identity returns whom the sidecar of the app that answered saw: the URI in the
// one element of the one header that it writes. By is the app's own identity.
func (s seen) identity(t *testing.T) (uri, by string) {
	t.Helper()
	headers := s.Headers["X-Forwarded-Client-Cert"]
	if len(headers) != 1 || strings.Contains(headers[0], ",") {
		t.Fatalf("X-Forwarded-Client-Cert is %q, want one header with one element", headers)
	}
	values := map[string]string{}
	for field := range strings.SplitSeq(headers[0], ";") {
		key, value, _ := strings.Cut(field, "=")
		if _, double := values[key]; double {
			t.Fatalf("%s is twice in %s", key, headers[0])
		}
		values[key] = value
	}
	return values["URI"], values["By"]
}

// wantIdentity checks that orders answered, and saw account.
func wantIdentity(t *testing.T, answer, account string) {
	t.Helper()
	var s seen
	decode(t, answer, &s)
	uri, by := s.identity(t)
	if s.App != "orders" || uri != spiffe(account) || by != spiffe("orders") {
		t.Errorf("app %s saw %s as %s, want orders to see %s as %s", s.App, uri, by, spiffe(account), spiffe("orders"))
	}
}

// TestMeshSeesThePod: who calls with borrownet is the borrowed pod for the mesh,
// whatever program, name and address family he uses and whoever he says he is.
func TestMeshSeesThePod(t *testing.T) {
	needMesh(t)
	up(t, "api")
	curl := []string{"curl", "-sS", "--max-time", "20"}
	for _, tt := range []struct {
		name string
		argv []string
	}{
		{"ipv4", append(curl, "-4", "http://orders/")},
		{"ipv6", append(curl, "-6", "http://orders/")},
		{"namespace", append(curl, "http://orders.shop/")},
		{"full_name", append(curl, "http://orders.shop.svc.cluster.local/")},
		{"forged", append(curl, "-H", "X-Forwarded-Client-Cert: By="+spiffe("orders")+";URI="+spiffe("admin"), "http://orders/")},
		{"python3", []string{"python3", "-c", "import urllib.request as u; print(u.urlopen('http://orders/', timeout=20).read().decode())"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := command{argv: append([]string{"borrownet", "run", "--"}, tt.argv...)}.run(t)
			if r.code != 0 {
				t.Fatal(r)
			}
			wantIdentity(t, r.stdout, "api")
		})
	}
	t.Run("static_go", func(t *testing.T) {
		wantIdentity(t, probe(t, time.Minute, "get", "http://orders/"), "api")
	})
	for _, name := range []string{"ledger", "ledger-pods", "ledger.shop.svc.cluster.local"} {
		t.Run("tcp_"+name, func(t *testing.T) {
			if got := probe(t, time.Minute, "many", name+":7000", "1"); got != "1" {
				t.Errorf("%s echoed %s of 1 connections", name, got)
			}
		})
	}
}

// TestMeshRefusesPlaintext calls from a pod that has no sidecar. That the laptop
// reaches nothing by itself, TestLaptopIsOutside shows.
func TestMeshRefusesPlaintext(t *testing.T) {
	needMesh(t)
	dns := strings.TrimSpace(kubectl(t, "-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[0].status.podIP}"))
	for _, tt := range []struct {
		call, to string
		ok       bool
	}{
		{"get", "http://" + dns + ":8080/health", true}, // it can call at all
		{"get", "http://orders.shop/", false},
		{"get", "http://" + podOf(t, "orders").Status.PodIP + ":8080/", false},
		{"tcp", "ledger.shop:7000", false},
	} {
		r := command{argv: []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"),
			"-n", "outside", "exec", "deployment/caller", "--", "/caller", tt.call, tt.to}}.run(t)
		switch {
		case tt.ok && r.code != 0:
			t.Errorf("%s %s: %v", tt.call, tt.to, r)
		case !tt.ok && (r.code == 0 || !strings.Contains(r.stderr, "reset by peer")):
			t.Errorf("%s %s is not refused: %v", tt.call, tt.to, r)
		}
	}
}

// policy lets ServiceAccount api and nobody else call an app.
const policy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %[1]s-for-api, namespace: shop}
spec:
  selector: {matchLabels: {app: %[1]s}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/api]}}]
`

// TestMeshAuthorizesBySession has two sessions at once, of which a policy lets
// one in.
func TestMeshAuthorizesBySession(t *testing.T) {
	needMesh(t)
	up(t, "api")
	up(t, "web")
	get := func(session string) result {
		return borrownet(t, "run", "--session", session, "--", "curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", "http://orders/")
	}
	echo := func(session string) result {
		return command{argv: []string{"borrownet", "run", "--session", session, "--", self(t), "ledger:7000", "1"}, env: []string{probeVar + "=many"}}.run(t)
	}
	for _, session := range []string{"api", "web"} {
		r := get(session)
		answer, code, _ := cutLast(r.stdout, "\n")
		if r.code != 0 || code != "200" {
			t.Fatalf("%s before the policy: %v", session, r)
		}
		wantIdentity(t, answer, session)
	}
	// The next test is to find the sidecars as they were.
	t.Cleanup(func() {
		waitFor(t, "web is let in again", patience, settled(func() bool {
			return strings.HasSuffix(get("web").stdout, "\n200") && strings.HasPrefix(echo("web").stdout, "1")
		}))
	})
	for _, app := range []string{"orders", "ledger"} {
		text := fmt.Sprintf(policy, app)
		admin := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}
		if r := (command{argv: append(admin, "apply", "-f", "-"), stdin: text}).run(t); r.code != 0 {
			t.Fatal(r)
		}
		t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "authorizationpolicy", app+"-for-api") })
	}
	waitFor(t, "the policies keep web out", patience, settled(func() bool {
		return strings.HasSuffix(get("web").stdout, "RBAC: access denied\n403") && strings.HasPrefix(echo("web").stdout, "0")
	}))
	r := get("api")
	answer, code, _ := cutLast(r.stdout, "\n")
	if code != "200" {
		t.Fatalf("api is kept out too: %v", r)
	}
	wantIdentity(t, answer, "api")
	if r := echo("api"); strings.TrimSpace(r.stdout) != "1" {
		t.Errorf("api is kept out of TCP too: %v", r)
	}
}

// settled reports whether ok holds eight times in a row: sidecars hear of a new
// policy later, and each of their pooled connections gets one more answer by the
// old one.
func settled(ok func() bool) func() bool {
	return func() bool {
		for range 8 {
			if !ok() {
				return false
			}
		}
		return true
	}
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// TestMeshRefusesTheProxysOwnUser is the negative control of all of the above: a
// process of the same pod that runs as the sidecar's user or in its group goes
// past the sidecar, and STRICT services refuse it.
func TestMeshRefusesTheProxysOwnUser(t *testing.T) {
	needMesh(t)
	const proxy, other = 1337, 10002
	name := podOf(t, "web").Metadata.Name
	for _, tt := range []struct {
		name     string
		uid, gid int
		ok       bool
	}{
		{"other_user", other, other, true},
		{"proxys_user", proxy, other, false},
		{"proxys_group", other, proxy, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			container := fmt.Sprintf("caller-%d-%d", tt.uid, tt.gid)
			kubectl(t, "-n", "shop", "patch", "pod", name, "--subresource", "ephemeralcontainers", "-p", callerPatch(t, container, tt.uid, tt.gid))
			var code string
			waitFor(t, container+" ends", patience, func() bool {
				code = kubectl(t, "-n", "shop", "get", "pod", name, "-o", fmt.Sprintf("jsonpath={.status.ephemeralContainerStatuses[?(@.name==%q)].state.terminated.exitCode}", container))
				return code != ""
			})
			log := kubectl(t, "-n", "shop", "logs", name, "-c", container)
			if !tt.ok {
				if code != "1" || !strings.Contains(log, "reset by peer") {
					t.Errorf("is not refused: exit code %s, %s", code, log)
				}
				return
			}
			status, answer, _ := strings.Cut(log, "\n")
			if code != "0" || !strings.HasPrefix(status, "200 ") {
				t.Fatalf("exit code %s, %s", code, log)
			}
			wantIdentity(t, answer, "web")
		})
	}
}

// callerPatch adds an ephemeral container that calls orders once.
func callerPatch(t *testing.T, name string, uid, gid int) string {
	t.Helper()
	type object map[string]any
	text, err := json.Marshal(object{"spec": object{"ephemeralContainers": []object{{
		"name": name, "image": "lab.local/caller:1", "imagePullPolicy": "IfNotPresent",
		"command": []string{"/caller", "get", "http://orders/"},
		"securityContext": object{
			"runAsUser": uid, "runAsGroup": gid, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
			"capabilities":   object{"drop": []string{"ALL"}},
			"seccompProfile": object{"type": "RuntimeDefault"},
		},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
