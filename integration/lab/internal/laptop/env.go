package laptop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/borrownet/borrownet/integration/lab/internal/resolved"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// RuntimeDir is the user's XDG_RUNTIME_DIR.
var RuntimeDir = fmt.Sprintf("/run/user/%d", spec.UserID)

// passed are variables of the caller that commands on the laptop see too;
// a name that ends in "_" stands for all that begin with it.
var passed = []string{"TERM", "COLORTERM", "NO_COLOR", "LANG", "LC_", "CI", "BORROWNET_"}

// Env returns the environment of the user's commands.
func Env(s spec.Spec) []string {
	env := []string{
		"HOME=" + Home,
		"USER=" + spec.UserName,
		"LOGNAME=" + spec.UserName,
		"SHELL=/bin/bash",
		"PATH=" + path(s),
		"XDG_RUNTIME_DIR=" + RuntimeDir,
		"KUBECONFIG=" + Kubeconfig,
		"LAB_ADMIN_KUBECONFIG=" + adminFile,
		"BORROWNET_AGENT_IMAGE=" + spec.AgentImage,
	}
	if s.Mesh {
		env = append(env, "LAB_MESH=1")
	}
	if s.Flux {
		env = append(env, "LAB_FLUX=1")
	}
	if s.Docker {
		env = append(env, "LAB_DOCKER=1")
	}
	if s.Nodes > 1 {
		env = append(env, "LAB_NODES=2")
	}
	if hasResolved(s) {
		env = append(env, "LAB_RESOLVED="+resolved.Dir)
	}
	if s.GoRoot != "" {
		// Nothing can be downloaded, and the checkout belongs to somebody else.
		env = append(env, "GOTOOLCHAIN=local", "GOPROXY=off", "GOSUMDB=off",
			"GOFLAGS=-buildvcs=false", "GOMODCACHE="+s.ModCache, "GOCACHE="+goCache)
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if name != "BORROWNET_AGENT_IMAGE" && isPassed(name) {
			env = append(env, kv)
		}
	}
	return env
}

func isPassed(name string) bool {
	for _, p := range passed {
		if name == p || strings.HasSuffix(p, "_") && strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// path prefers what the checkout built, then the lab's kubectl.
func path(s spec.Spec) string {
	dirs := []string{filepath.Join(s.Checkout, "bin"), binDir}
	if s.GoRoot != "" {
		dirs = append(dirs, filepath.Join(s.GoRoot, "bin"))
	}
	for _, t := range s.Tools {
		dirs = append(dirs, filepath.Join(t, "bin"))
	}
	return strings.Join(append(dirs, "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"), ":")
}
