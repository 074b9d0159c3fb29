//go:build lab

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// variant is one way for a pod to be in a mesh. Its name is that of its pod, container
// and ServiceAccount.
type variant struct {
	name        string
	annotations string // of the pod
	containers  string // what the pod consists of then, init containers first
	rules       string // of the redirect rules, as the pod tells them
}

const (
	tidy    = "variants" // enforces the restricted standard, as shop does
	lenient = "legacy"   // enforces nothing, so that pods may write their own rules
)

// The annotations that choose a variant.
const (
	classic     = `sidecar.istio.io/nativeSidecar: "false"`
	transparent = `sidecar.istio.io/interceptionMode: TPROXY`
	byInit      = `inject.istio.io/templates: sidecar-init` // of the lab: as in a mesh without the CNI plugin
	byNFT       = `inject.istio.io/templates: sidecar-nft`
	dnsCapture  = `proxy.istio.io/config: '{"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}'`
)

// redirect is the rule that sends what leaves a pod to its sidecar, as iptables prints it.
const redirect = "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"

// variants are those of each namespace.
var variants = map[string][]variant{
	tidy: {
		{name: "native", containers: "istio-validation istio-proxy=Always | native"},
		{name: "classic", annotations: classic, containers: "istio-validation | classic istio-proxy"},
		{name: "captured", annotations: dnsCapture, containers: "istio-validation istio-proxy=Always | captured"},
	},
	lenient: {
		{name: "tproxy", annotations: transparent, containers: "istio-validation istio-proxy=Always | tproxy", rules: "-j TPROXY --on-port 15006"},
		{name: "init", annotations: byInit, containers: "istio-init istio-proxy=Always | init", rules: redirect},
		{name: "init-classic", annotations: byInit + "\n    " + classic, containers: "istio-init | init-classic istio-proxy", rules: redirect},
		{name: "init-nft", annotations: byNFT, containers: "istio-init istio-proxy=Always | init-nft", rules: "add rule inet istio-proxy-nat istio-redirect"},
		{name: "init-tproxy", annotations: byInit + "\n    " + transparent, containers: "istio-init istio-proxy=Always | init-tproxy", rules: "-j TPROXY --on-port 15006"},
	},
}

const variantPod = `---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {app: %[1]s}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  namespace: %[2]s
  labels: {app: %[1]s}
  annotations:
    made-by: test
    %[3]s
spec:
  serviceAccountName: %[1]s
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: %[1]s
    image: lab.local/api:1
    imagePullPolicy: IfNotPresent
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// makeVariants makes the namespaces and their pods and waits until they are ready.
func makeVariants(t *testing.T) {
	t.Helper()
	for namespace, level := range map[string]string{tidy: "restricted", lenient: "privileged"} {
		newNamespace(t, namespace, "istio-injection: enabled, "+enforce+": "+level)
		t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
		role := mustBorrownet(t, "rbac", "-n", namespace, "--workloads", "--subject", "user:dev").stdout
		kubectl(t, "apply", "-f", writeFile(t, role))
		var pods strings.Builder
		for _, v := range variants[namespace] {
			fmt.Fprintf(&pods, variantPod, v.name, namespace, v.annotations)
		}
		if namespace == lenient {
			fmt.Fprintf(&pods, loadPod, namespace)
		}
		kubectl(t, "apply", "-f", writeFile(t, pods.String()))
	}
	for namespace := range variants {
		argv := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=150s"}
		if r := (command{argv: argv, timeout: 3 * time.Minute}).run(t); r.code != 0 {
			t.Fatalf("%v\n%s", r, kubectl(t, "-n", namespace, "get", "pods,events"))
		}
	}
}

// enforce is the label that sets a namespace's pod security level.
const enforce = "pod-security.kubernetes.io/enforce"

// shape says what the pod consists of, and what it tells of its redirect rules: what its
// first init container says, and where the sidecar may read them, the rules themselves.
func (v variant) shape(t *testing.T, namespace string) (containers, rules string) {
	t.Helper()
	const each = `{range .spec.initContainers[*]}{.name} {end}| {range .spec.containers[*]}{.name} {end}`
	containers = strings.TrimSpace(kubectl(t, "-n", namespace, "get", "pod", v.name, "-o", "jsonpath="+each))
	policy := kubectl(t, "-n", namespace, "get", "pod", v.name, "-o", `jsonpath={.spec.initContainers[?(@.name=="istio-proxy")].restartPolicy}`)
	if policy != "" {
		containers = strings.Replace(containers, "istio-proxy", "istio-proxy="+policy, 1)
	}
	init, _, _ := strings.Cut(containers, " ")
	rules = kubectl(t, "-n", namespace, "logs", v.name, "-c", init)
	if strings.Contains(v.annotations, transparent) {
		rules = kubectl(t, "-n", namespace, "exec", v.name, "-c", "istio-proxy", "--", "iptables-save")
	}
	return containers, rules
}

// TestMeshVariants has a session on a pod of each way to be in a mesh: the mesh sees the
// pod, as it does from inside of it.
func TestMeshVariants(t *testing.T) {
	needMesh(t)
	makeVariants(t)
	for namespace, list := range variants {
		for _, v := range list {
			t.Run(v.name, func(t *testing.T) {
				if containers, rules := v.shape(t, namespace); containers != v.containers || !strings.Contains(rules, v.rules) {
					t.Fatalf("the pod is %q with %s, want %q with %q", containers, rules, v.containers, v.rules)
				}
				var app *copyApp
				var flags []string
				if namespace == lenient { // elsewhere NET_RAW is refused
					app = listenForCopies(t)
					flags = []string{"--mirror", fmt.Sprintf("8080:%d", app.port)}
				}
				p := borrow(t, v, namespace, flags...)
				account := "spiffe://cluster.local/ns/" + namespace + "/sa/" + v.name
				wantMesh(t, v.name, account)
				got, s := p.same(t, "get", "http://orders.shop/")
				if got.Code != 0 {
					t.Fatalf("got %+v", got)
				}
				s.wantSeen(t, "orders", account)
				_, s = p.same(t, "grpc", "orders.shop:9090")
				s.wantSeen(t, "orders", account)
				if got, _ := p.same(t, "tcp", "ledger.shop:7000"); got.Said != "hello" {
					t.Errorf("TCP: got %+v", got)
				}
				if app != nil {
					mirrorsBehindSidecar(t, v.name, app)
				}
			})
		}
	}
	t.Run("names_of_the_mesh", namesOfTheMesh)
	t.Run("pod_security_blames_the_pod", podSecurityBlamesThePod)
}

// mirrorsBehindSidecar wants requests that come to the pod of a variant through the mesh to be copied in plain, from where
// the pod's spec says that its sidecar hands them on.
func mirrorsBehindSidecar(t *testing.T, name string, app *copyApp) {
	t.Helper()
	live := startCalls(t, lenient, name, "50", "1s", "3000")()
	if live.Errors > 0 || live.Lost > 0 {
		t.Errorf("the live pod's callers: %+v", live)
	}
	awaitCopies(t, name, app, live.Sent)
	if app.count() == 0 {
		t.Error("no request was copied")
	}
	waitFor(t, "the counters of the capture come", patience, func() bool { return mirrorOf(t, name).Mirror.Capture.Packets > 0 })
	mirrorOf(t, name).wantPlace(t, true)
}

// borrow opens a session on the pod of a variant.
func borrow(t *testing.T, v variant, namespace string, flags ...string) place {
	t.Helper()
	mustBorrownet(t, append([]string{"up", "-d", "-n", namespace, "--pod", v.name, "--session", v.name}, flags...)...)
	t.Cleanup(func() { mustBorrownet(t, "down", v.name) })
	return place{session: v.name, namespace: namespace, pod: v.name, container: v.name}
}

// serviceEntry names what no DNS server knows; the sidecars of pods with DNS capture do.
const serviceEntry = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rates, namespace: shop}
spec:
  hosts: [rates.example.org]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http-web, protocol: HTTP}]
  endpoints: [{address: 10.96.0.55}] # Service partner.outside
`

// namesOfTheMesh resolves a name that only a pod with DNS capture knows.
func namesOfTheMesh(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, serviceEntry))
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "serviceentry", "rates") })
	captured := borrow(t, variant{name: "captured"}, tidy)
	waitFor(t, "the sidecar knows the name", patience, func() bool { return captured.inside(t, "lookup", "rates.example.org").code == 0 })
	got, _ := captured.same(t, "lookup", "rates.example.org")
	if !strings.HasPrefix(got.Said, "240.240.") && !strings.HasPrefix(got.Said, "2001:2::") {
		t.Errorf("got %+v, want addresses that the mesh has allocated", got)
	}
	x := tools{programs: filepath.Dir(self(t)), session: captured.session}
	for _, l := range lookups {
		t.Run(l.name, func(t *testing.T) {
			if !x.has(l) {
				t.Skipf("needs %s: make setup", l.need)
			}
			r := x.onLaptop(t, l.script, "rates.example.org")
			// host asks for MX too, which the mesh leaves to the cluster's nameserver; that has nobody to ask.
			said := strings.TrimSuffix(found(t, r.stdout)["rates.example.org"], " SERVFAIL")
			if want := found(t, "rates.example.org "+got.Said)["rates.example.org"]; said != want {
				t.Errorf("got %q, want %q as in the pod: %v", said, want, r)
			}
		})
	}
	got, s := captured.same(t, "get", "http://rates.example.org/")
	if got.Code != 0 {
		t.Errorf("got %+v", got)
	}
	s.wantSeen(t, "caller", "")
	if got, _ := captured.same(t, "lookup", "orders.shop"); got.Code != 0 {
		t.Errorf("a name of the cluster: got %+v", got)
	}
	native := borrow(t, variant{name: "native"}, tidy)
	if got, _ := native.same(t, "lookup", "rates.example.org"); got.Code == 0 {
		t.Errorf("without DNS capture: got %+v, want a failure", got)
	}
}

// podSecurityBlamesThePod raises the level of a namespace whose pods violate it.
func podSecurityBlamesThePod(t *testing.T) {
	kubectl(t, "label", "namespace", lenient, "--overwrite", enforce+"=restricted")
	before := specOf(t, lenient, "init")
	// Another key than that of the agent that is parked there: else it would be taken again.
	argv := []string{"-n", lenient, "--pod", "init", "--session", "fresh", "--idle-ttl", "14m"}
	r := failsWith(t, command{argv: argv}, `the pod itself violates PodSecurity "restricted:latest" of namespace `+lenient, "by its own istio-init",
		"not by borrownet's agent", "the mesh's CNI plugin")
	dry := borrownet(t, append([]string{"up", "--dry-run"}, argv...)...)
	if dry.code != r.code || !strings.Contains(dry.stderr, "not by borrownet's agent") {
		t.Errorf("dry run, want exit code %d: %v", r.code, dry)
	}
	if after := specOf(t, lenient, "init"); after != before {
		t.Errorf("the refused attach changed the pod (-before +after):\n%s", cmp.Diff(before, after))
	}
}
