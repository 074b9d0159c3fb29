//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// aspects are what is looked at in a pod's network namespace, and how: scripts whose
// output is the same as long as nothing was changed. Counters are left out.
var aspects = []struct{ name, script string }{
	// What iptables writes is in nftables too; of the old kind there are only names.
	{"rules", `nft -s list ruleset; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || true`},
	{"sysctls", `grep -rs "" /proc/sys/net | grep -v ^/proc/sys/net/netfilter/ | sort`},
	{"conntrack", `grep -rs "" /proc/sys/net/netfilter | grep -v nf_conntrack_count: | sort`},
	{"links", `ip -o link; ip -o address; tc qdisc`},
	{"routes", `ip rule; ip route show table all; ip -6 rule; ip -6 route show table all`},
	{"tcp-listeners", `ss -Hltn | tr -s " " | cut -d" " -f4 | sort`},
	{"other-listeners", `for kind in udp raw packet; do ss -Hln --$kind | tr -s " " | cut -d" " -f4 | sort | sed "s/^/$kind /"; done`},
}

// lookAt returns the aspects of the namespace that in enters.
func lookAt(node func(string) string, in string) map[string]string {
	const mark = "== "
	var script strings.Builder
	fmt.Fprintf(&script, "%s /bin/sh -eu <<'END'\n", in)
	for _, a := range aspects {
		fmt.Fprintf(&script, "echo '%s%s'\n%s\n", mark, a.name, a.script)
	}
	script.WriteString("END\n")
	seen := map[string]string{}
	for part := range strings.SplitSeq("\n"+node(script.String()), "\n"+mark) {
		if name, text, ok := strings.Cut(part, "\n"); ok {
			seen[name] = text
		}
	}
	return seen
}

// changed lists the aspects in which two looks differ.
func changed(before, after map[string]string) []string {
	var names []string
	for _, a := range aspects {
		if before[a.name] != after[a.name] {
			names = append(names, a.name)
		}
	}
	return names
}

// TestPodsNetworkIsLeftAlone compares the pod's network namespace, seen from the
// node, before, during and after a session that carries traffic. The agent's own
// listener on loopback is the one difference.
func TestPodsNetworkIsLeftAlone(t *testing.T) {
	pod := freshPod(t)
	node := onNode(t)
	in := netnsOf(t, node, pod.Metadata.UID)
	before := lookAt(node, in)
	checkLook(t, before)

	up(t, pod.Metadata.Name)
	// By address: a name would be asked for from a datagram socket of its flow.
	probe(t, time.Minute, "many", serviceIP(t, "ledger")+":7000", "20")
	during := lookAt(node, in)
	listener := agentListener(t, pod.Metadata.Name)
	if slices.Contains(strings.Fields(before["tcp-listeners"]), listener) {
		t.Fatalf("%s was taken before the session", listener)
	}
	listeners := strings.Fields(during["tcp-listeners"])
	at := slices.Index(listeners, listener)
	if at < 0 {
		t.Fatalf("the agent says it listens on %s, which is not among %q", listener, listeners)
	}
	during["tcp-listeners"] = strings.Join(slices.Delete(listeners, at, at+1), "\n")
	if diff := cmp.Diff(before, during); diff != "" {
		t.Errorf("during the session (-before +during):\n%s", diff)
	}

	mustBorrownet(t, "down", "--all", "--stop-agent")
	waitFor(t, "the agent has ended", patience, func() bool { return podOf(t, pod.Metadata.Name).running() == 0 })
	after := lookAt(node, in)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after the session (-before +after):\n%s", diff)
	}
	seesChanges(t, node, in, after)
}

// checkLook checks that there is something to compare.
func checkLook(t *testing.T, seen map[string]string) {
	t.Helper()
	want := map[string]string{
		"sysctls":   "/proc/sys/net/ipv4/ip_default_ttl:",
		"conntrack": "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established:",
		"links":     "eth0",
		"routes":    "default via",
		// The app's own port.
		"tcp-listeners": ":8080",
	}
	if os.Getenv("LAB_MESH") != "" {
		want["rules"] = "15001" // where the sidecar has outbound calls redirected to
	}
	for name, text := range want {
		if !strings.Contains(seen[name], text) {
			t.Fatalf("%s are not seen: no %q in\n%s", name, text, seen[name])
		}
	}
}

// datagramListener leaves a process behind that listens on a UDP port, with its id in
// /listener. That the comparison sees a TCP listener, the agent's own shows.
const datagramListener = `perl -MSocket -e '
	socket(S, PF_INET, SOCK_DGRAM, 0) && bind(S, sockaddr_in(9, INADDR_ANY)) or die $!;
	if (my $pid = fork) { open P, ">/listener"; print P $pid; exit }
	close STDIN; close STDOUT; close STDERR; sleep 60'`

// seesChanges is the control of the comparison: what a tool of another kind would do
// in the namespace shows, aspect by aspect.
func seesChanges(t *testing.T, node func(string) string, in string, before map[string]string) {
	t.Helper()
	for _, tt := range []struct{ aspect, do, undo string }{
		{"rules", "nft add table inet control", "nft delete table inet control"},
		{"sysctls", "sysctl -qw net.ipv4.ip_default_ttl=63", "sysctl -qw net.ipv4.ip_default_ttl=64"},
		{"conntrack", "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0", "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1"},
		{"links", "ip link set lo txqueuelen 999", "ip link set lo txqueuelen 1000"},
		{"routes", "ip route add unreachable 203.0.113.7", "ip route delete unreachable 203.0.113.7"},
		{"other-listeners", datagramListener, "kill $(cat /listener); while kill -0 $(cat /listener) 2>/dev/null; do sleep 0.1; done"},
	} {
		node(in + " " + tt.do)
		if got := changed(before, lookAt(node, in)); !slices.Equal(got, []string{tt.aspect}) {
			t.Errorf("after %q the comparison sees changes in %q, want %s", tt.do, got, tt.aspect)
		}
		node(in + " " + tt.undo)
	}
	if diff := cmp.Diff(before, lookAt(node, in)); diff != "" {
		t.Fatalf("the control was not undone (-before +after):\n%s", diff)
	}
}

// serviceIP returns the IPv4 address of a Service in namespace shop.
func serviceIP(t *testing.T, name string) string {
	t.Helper()
	return kubectl(t, "-n", "shop", "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
}

// freshPod makes a pod of the sample app in which no other test has left an agent.
func freshPod(t *testing.T) pod {
	t.Helper()
	const name = "fresh"
	admin := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "shop"}
	if r := (command{argv: append(admin, "apply", "-f", "-"), stdin: fmt.Sprintf(samplePod, name)}).run(t); r.code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "pod", name) })
	kubectl(t, "-n", "shop", "wait", "pod", name, "--for=condition=Ready", "--timeout=180s")
	return podOf(t, name)
}

const samplePod = `apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: shop, labels: {app: %[1]s}}
spec:
  serviceAccountName: api
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: api
    image: lab.local/api:1
    imagePullPolicy: IfNotPresent
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// agentListener returns the address that the agent of a pod says it listens on: its
// first line has the port.
func agentListener(t *testing.T, pod string) string {
	t.Helper()
	p := podOf(t, pod)
	agent := p.Spec.EphemeralContainers[len(p.Spec.EphemeralContainers)-1].Name
	line, _, _ := strings.Cut(kubectl(t, "-n", "shop", "logs", p.Metadata.Name, "-c", agent), "\n")
	var hello struct {
		Port int `json:"port"`
	}
	if err := json.Unmarshal([]byte(line), &hello); err != nil || hello.Port == 0 {
		t.Fatalf("first line of container %s has no port: %v: %s", agent, err, line)
	}
	return fmt.Sprintf("127.0.0.1:%d", hello.Port)
}
