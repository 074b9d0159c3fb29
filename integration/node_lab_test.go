//go:build lab

package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/integration/labnode"
)

// onNode starts a labnode.Pod for the test and returns what runs a shell script there
// and gives its output.
func onNode(t *testing.T) func(script string) string {
	t.Helper()
	admin := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "kube-system"}
	if r := (command{argv: append(admin, "apply", "-f", "-"), stdin: labnode.Pod}).run(t); r.code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { kubectl(t, "-n", "kube-system", "delete", "pod", "node", "--now") })
	waitFor(t, "the node's pod runs", patience, func() bool {
		return kubectl(t, "-n", "kube-system", "get", "pod", "node", "-o", "jsonpath={.status.phase}") == "Running"
	})
	return func(script string) string {
		t.Helper()
		r := command{argv: append(admin, "exec", "-i", "node", "--", "/bin/sh", "-eu"), stdin: labnode.Path + script}.run(t)
		if r.code != 0 {
			t.Fatalf("on the node: %s\n%v", script, r)
		}
		return strings.TrimSpace(r.stdout)
	}
}

// netnsOf returns the shell command that runs another one in the network namespace of
// the pod with the uid.
func netnsOf(t *testing.T, node func(string) string, uid string) string {
	t.Helper()
	// Every process of a pod is in a control group that is named after it.
	pids := strings.Fields(node(`grep -ls "pod` + uid + `" /proc/[0-9]*/cgroup | cut -d/ -f3`))
	if len(pids) == 0 {
		t.Fatalf("no process on the node belongs to pod %s", uid)
	}
	return "nsenter --net=/proc/" + pids[0] + "/ns/net --"
}
