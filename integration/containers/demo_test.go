//go:build docker

package containers

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestDemoInAContainer runs the demo in plain containers, under the engine's default seccomp profile.
func TestDemoInAContainer(t *testing.T) {
	p := emptyPlace(t)
	if options := p.must("docker", "info", "-f", "{{.SecurityOptions}}"); !strings.Contains(options, "name=seccomp,profile=builtin") && !strings.Contains(options, "name=seccomp,profile=default") {
		t.Fatalf("the engine has no default seccomp profile: %s", options)
	}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"root", nil},
		{"root-without-capabilities", []string{"--cap-drop", "ALL"}},
		{"user", []string{"--user", "1001:1001"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := *p
			p.t = t
			argv := append([]string{"docker", "run", "--rm", "--network", "none", "-v", p.bin + ":/usr/bin/" + filepath.Base(p.bin) + ":ro"}, tt.args...)
			said := p.must(append(argv, busybox, "sh", "-c", `borrownet demo && grep ^Seccomp: /proc/self/status && ls -A /tmp`)...)
			if !strings.Contains(said, `"remote": "192.0.2.10:`) || !strings.HasSuffix(strings.TrimSpace(said), "Seccomp:\t2") {
				t.Errorf("the call is not made, something is left in /tmp, or nothing is filtered:\n%s", said)
			}
		})
	}
}
