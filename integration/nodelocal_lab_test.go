//go:build lab

package integration

import (
	"encoding/json"
	"strings"
	"testing"
)

// nodeCache is what a NodeLocal DNSCache is to the pods of its node: a nameserver at a link-local address that asks the cluster's.
// A name that nobody else has tells who was asked.
const nodeCache = `ip address replace 169.254.20.10/32 dev lo
setsid python3 -c '
import socket, threading
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("169.254.20.10", 53))
def answer(query, client):
    end = query.index(0, 12) + 5
    if query[12:end - 4].lower() == b"\x04node\x05cache\x04test\x00":
        found = query[end - 3] == 1 # type A
        reply = query[:2] + b"\x85\x80\0\1" + bytes([0, found]) + bytes(4) + query[12:end]
        here.sendto(reply + (b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + bytes([192, 0, 2, 153]) if found else b""), client)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as cluster:
        cluster.settimeout(4)
        cluster.sendto(query, ("10.96.0.10", 53))
        here.sendto(cluster.recv(4096), client)
while True:
    threading.Thread(target=answer, args=here.recvfrom(4096), daemon=True).start()
' </dev/null >/dev/null 2>&1 &
echo $!
`

// nodeLocal is a pod as the kubelet makes it where such a cache runs.
const nodeLocal = `apiVersion: v1
kind: Pod
metadata: {name: node-local, namespace: shop, labels: {app: node-local}}
spec:
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  dnsPolicy: None
  dnsConfig:
    nameservers: [169.254.20.10]
    searches: [shop.svc.cluster.local, svc.cluster.local, cluster.local]
    options: [{name: ndots, value: "5"}]
  containers:
  - name: app
    image: lab.local/api:1
    imagePullPolicy: IfNotPresent
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// TestNodeLocalDNS checks that a pod's nameserver at a link-local address of its node is the one that is asked, and the only one.
func TestNodeLocalDNS(t *testing.T) {
	node := onNode(t)
	cache := node(nodeCache)
	kubectl(t, "apply", "-f", writeFile(t, nodeLocal))
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "pod", "node-local", "--now") })
	kubectl(t, "-n", "shop", "wait", "pod/node-local", "--for=condition=Ready", "--timeout=180s")
	up(t, "node-local")
	type explanation struct {
		Rcode, Error string
		Answer       []string
		Steps        []struct{ Attempts []struct{ Server string } }
	}
	explain := func(name string) (e explanation) {
		t.Helper()
		if err := json.Unmarshal([]byte(mustBorrownet(t, "explain", "dns", name, "-o", "json").stdout), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	waitFor(t, "the node's cache answers", patience, func() bool { return explain("node.cache.test").Rcode == "NOERROR" })
	for name, want := range map[string]string{
		"node.cache.test": "192.0.2.153", "orders": kubectl(t, "-n", "shop", "get", "service", "orders", "-o", "jsonpath={.spec.clusterIP}"),
	} {
		if r := mustBorrownet(t, "run", "--", "getent", "ahostsv4", name); !strings.HasPrefix(r.stdout, want+" ") {
			t.Errorf("%s: want %s: %v", name, want, r)
		}
	}
	e := explain("ledger.shop.svc.cluster.local")
	if e.Rcode != "NOERROR" || len(e.Steps) != 1 || len(e.Steps[0].Attempts) == 0 {
		t.Errorf("not asked of the node's cache: %+v", e)
	}
	for _, s := range e.Steps {
		for _, attempt := range s.Attempts { // more than one where an answer is late
			if attempt.Server != "169.254.20.10:53" {
				t.Errorf("asked of another: %+v", e)
			}
		}
	}
	if r := borrownet(t, "run", "--", "curl", "-sS", "--max-time", "20", "http://169.254.20.10/"); r.code == 0 || strings.Contains(r.stderr, "timed out") {
		t.Errorf("another port of the node's address is not refused: %v", r)
	}
	node("kill " + cache)
	if e := explain("web.shop.svc.cluster.local"); e.Rcode != "SERVFAIL" || e.Error == "" {
		t.Errorf("without the node's cache: %+v", e)
	}
}
