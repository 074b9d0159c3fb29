package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// namesPod asks CoreDNS directly, with this same program. It is in another namespace, because in shop nobody may mount the
// node's files.
const namesPod = `apiVersion: v1
kind: Pod
metadata: {name: names, namespace: kube-system}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: names
    image: lab.local/pause:1
    imagePullPolicy: IfNotPresent
    volumeMounts: [{name: programs, mountPath: %[1]s, readOnly: true}]
  volumes: [{name: programs, hostPath: {path: %[1]s}}]
`

// clusterDNS is the lab's.
const clusterDNS = "10.96.0.10"

// collectNames measures DNS: CoreDNS from a pod, and through a session.
func (s samples) collectNames(o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if _, err := kubectlAdmin(fmt.Sprintf(namesPod, filepath.Dir(self)), "apply", "-f", "-"); err != nil {
		return err
	}
	defer kubectlAdmin("", "-n", "kube-system", "delete", "pod", "names", "--now")
	if _, err := kubectlAdmin("", "-n", "kube-system", "wait", "pod/names", "--for=condition=Ready", "--timeout=180s"); err != nil {
		return err
	}
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
		return err
	}
	for range o.rounds {
		for _, turn := range []struct {
			subject string
			run     func() ([]byte, error)
		}{
			{"borrownet", func() ([]byte, error) { return borrownet("run", "--", self, "names", "-") }},
			{"direct", func() ([]byte, error) {
				return kubectlAdmin("", "-n", "kube-system", "exec", "names", "--", self, "names", clusterDNS)
			}},
		} {
			out, err := turn.run()
			if err != nil {
				return err
			}
			var n Names
			if err := json.Unmarshal(out, &n); err != nil {
				return fmt.Errorf("%s: %w in %q", turn.subject, err, out)
			}
			s.add("dns.cached.p50", turn.subject, n.Cached)
			s.add("dns.uncached.p50", turn.subject, n.Uncached)
			s.add("dns.echo.p50", turn.subject, n.RTT)
			s.add("dns.uncached.overhead", turn.subject, n.Overhead)
			s.add("dns.qps", turn.subject, n.Rate)
			s.add("dns.lost", turn.subject, float64(n.Lost))
		}
	}
	return nil
}
