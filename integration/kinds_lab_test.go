//go:build lab

package integration

import (
	"fmt"
	"strings"
	"testing"
)

// kindOfApp is a way in which people run an application.
type kindOfApp struct {
	name     string
	image    string
	security string // of its container
	token    bool   // the ServiceAccount's token can be had from the first
	why      string // what is said of files that cannot be had
}

// appKinds are they. The kubelet gives a token to its pod's user where all containers
// have the same one in the spec, else to everybody: an application that is root by its
// spec shares its own once the kubelet has taken notice of the agent.
var appKinds = []kindOfApp{
	{"numeric-user", "api", "{}", true, "keys: the agent may not read it, being uid 65532"},
	{"named-user", "api-named", "{}", true, "keys: the agent may not read it, being uid 65532"},
	{"root", "api", "{runAsUser: 0}", false, "keys: the agent may not read it, being uid 65532"},
	{"read-only-root", "api", "{runAsUser: 10001, readOnlyRootFilesystem: true}", true, "keys: the agent may not read it, being uid 10001"},
}

// TestKindsOfApps borrows applications with a numeric and a named user, as root, and with
// a read-only root, all of images that have nothing but the program: the network works
// for all of them, and of files what cannot be had is named, with the reason.
func TestKindsOfApps(t *testing.T) {
	const namespace = "kinds"
	var pods strings.Builder
	for _, k := range appKinds {
		fmt.Fprintf(&pods, `---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: kinds}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - {name: open, secret: {secretName: keys}}
  containers:
  - name: app
    image: lab.local/%s:1
    imagePullPolicy: IfNotPresent
    volumeMounts: [{name: keys, mountPath: /run/borrownet.test/keys}, {name: open, mountPath: /run/borrownet.test/open}]
    securityContext: %s
`, k.name, k.image, k.security)
	}
	kubectl(t, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=180s")
	newNamespace(t, namespace, "")
	kubectl(t, "apply", "-f", writeFile(t, `
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: kinds}
stringData: {keys: `+planted+`}
`+pods.String()))
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
	kubectl(t, "apply", "-f", writeFile(t, mustBorrownet(t, "rbac", "-n", namespace, "--subject", "user:dev").stdout))
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s")
	for _, k := range appKinds {
		t.Run(k.name, func(t *testing.T) {
			r := mustBorrownet(t, "up", "-d", "-n", namespace, "--pod", k.name)
			t.Cleanup(func() { command{argv: []string{"borrownet", "down", "--all", "--stop-agent"}}.run(t) })
			for _, want := range []string{k.why, "hint: an fsGroup in the pod's securityContext lets the agent read them"} {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("not said: %q: %v", want, r)
				}
			}
			r = mustBorrownet(t, "run", "--", "sh", "-c", `curl -sS -m 10 -o /dev/null http://orders.shop && echo network
				cat /run/borrownet.test/open/keys && echo
				test -e /run/borrownet.test/keys/keys && echo keys
				test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; true`)
			if token := strings.HasSuffix(r.stdout, "\ntoken\n"); !strings.HasPrefix(r.stdout, "network\n"+planted+"\n") || k.token && !token || strings.Contains(r.stdout, "keys") {
				t.Errorf("it has %q; %v", r.stdout, r)
			}
			noLeaks(t)
		})
	}
}
