//go:build docker

package containers

import (
	"strings"
	"testing"
)

// TestDemoInAContainer runs the demo in plain containers: under the engine's default seccomp profile, and under none, as in most pods
// of Kubernetes.
func TestDemoInAContainer(t *testing.T) {
	p := emptyPlace(t)
	if options := p.must("docker", "info", "-f", "{{.SecurityOptions}}"); !strings.Contains(options, "name=seccomp,profile=default") && !strings.Contains(options, "name=seccomp,profile=builtin") { // its name since version 23
		t.Fatalf("the engine has no default seccomp profile: %s", options)
	}
	for _, tt := range []struct {
		name     string
		args     []string
		filtered string
	}{
		{"root", nil, "2"},
		{"root-without-capabilities", []string{"--cap-drop", "ALL"}, "2"},
		{"user", []string{"--user", "1001:1001"}, "2"},
		{"no-network", []string{"--network", "none"}, "2"},
		{"unconfined", []string{"--security-opt", "seccomp=unconfined"}, "0"},
		{"user-unconfined", []string{"--security-opt", "seccomp=unconfined", "--user", "1001:1001"}, "0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := *p
			p.t = t
			argv := append([]string{"docker", "run", "--rm", "-v", p.bin + ":/bin/borrownet:ro"}, tt.args...)
			said := p.must(append(argv, busybox, "sh", "-c", `borrownet demo && grep ^Seccomp: /proc/self/status && ls -A /tmp`)...)
			if !strings.Contains(said, `"remote": "192.0.2.10:`) || !strings.HasSuffix(strings.TrimSpace(said), "Seccomp:\t"+tt.filtered) {
				t.Errorf("the call is not made, something is left in /tmp, or the filter is another:\n%s", said)
			}
		})
	}
}
