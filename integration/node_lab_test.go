//go:build lab

package integration

import (
	"os"
	"strings"
	"testing"
	"time"
)

// nodePod has the node's programs and process ids and all rights: what an
// administrator of the node sees, from inside of the cluster.
const nodePod = `apiVersion: v1
kind: Pod
metadata: {name: node, namespace: kube-system}
spec:
  hostPID: true
  hostNetwork: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: node
    image: lab.local/pause:1
    imagePullPolicy: IfNotPresent
    securityContext: {privileged: true, runAsUser: 0, runAsGroup: 0}
    volumeMounts:
    - {name: usr, mountPath: /usr, readOnly: true}
    - {name: bin, mountPath: /bin, readOnly: true}
    - {name: lib, mountPath: /lib, readOnly: true}
    - {name: lib64, mountPath: /lib64, readOnly: true}
  volumes:
  - {name: usr, hostPath: {path: /usr}}
  - {name: bin, hostPath: {path: /usr/bin}}
  - {name: lib, hostPath: {path: /usr/lib}}
  - {name: lib64, hostPath: {path: /usr/lib64, type: DirectoryOrCreate}}
`

// onNode starts a nodePod for the test and returns what runs a shell script there
// and gives its output.
func onNode(t *testing.T) func(script string) string {
	t.Helper()
	admin := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "kube-system"}
	if r := (command{argv: append(admin, "apply", "-f", "-"), stdin: nodePod}).run(t); r.code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { kubectl(t, "-n", "kube-system", "delete", "pod", "node", "--now") })
	waitFor(t, "the node's pod runs", time.Minute, func() bool {
		return kubectl(t, "-n", "kube-system", "get", "pod", "node", "-o", "jsonpath={.status.phase}") == "Running"
	})
	return func(script string) string {
		t.Helper()
		r := command{argv: append(admin, "exec", "-i", "node", "--", "/bin/sh", "-eu"), stdin: "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n" + script}.run(t)
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
