package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// mesh says what the spec of t's pod tells of its mesh. Whether connections really go
// through it a session finds out.
func mesh(t *kube.Target) Check {
	switch {
	case t.Mesh.Proxy == "" && t.Mesh.Asked != "":
		return warn("mesh", "the pod asks for a sidecar ("+t.Mesh.Asked+") and has none: calls leave it without the mesh",
			fmt.Sprintf("kubectl -n %s get events --field-selector involvedObject.name=%s", t.Namespace, t.Pod))
	case t.Mesh.Proxy == "":
		return ok("mesh", "no sidecar")
	case len(t.Mesh.Excluded) == 0:
		return ok("mesh", "sidecar "+t.Mesh.Proxy)
	}
	var settings []string
	for _, e := range t.Mesh.Excluded {
		settings = append(settings, e.Setting)
	}
	return ok("mesh", fmt.Sprintf("sidecar %s, which the pod takes some connections past: %s", t.Mesh.Proxy, strings.Join(settings, ", ")))
}

// Unanswered is the check of a daemon that does not say which sessions there are.
func Unanswered(err error) Check { return failed("path", err) }

// Paths says of each session that is up whether its path works; the round trips in list
// have just been measured.
func Paths(list []session.Status) []Check {
	var checks []Check
	for _, s := range list {
		pod := s.Target.Namespace + "/" + s.Target.Pod
		switch {
		case s.Problem != nil:
			checks = append(checks, failed("path", s.Problem))
		case s.State == session.Ready && s.RoundTrip > 0:
			checks = append(checks, ok("path", fmt.Sprintf("session %s: pod %s answers in %v", s.Session, pod, s.RoundTrip.Round(10*time.Microsecond))))
		default:
			checks = append(checks, warn("path", fmt.Sprintf("session %s: pod %s has not answered, the session is %s", s.Session, pod, s.State), "borrownet status "+s.Session))
		}
	}
	return checks
}
