package session

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// Mesh says whether what leaves the pod goes through its mesh proxy, and as
// whom. It was found out by a connection of the agent and by what the proxy
// presents, not read off the pod's spec.
type Mesh struct {
	Proxy    string         `json:"proxy,omitempty"`    // the sidecar's container; "" = the pod has none
	Path     Path           `json:"path"`               //
	Probe    netip.AddrPort `json:"probe,omitzero"`     // where the probe was to go
	Listener netip.AddrPort `json:"listener,omitzero"`  // who in the pod took it instead
	Owner    *int64         `json:"owner,omitempty"`    // uid of the listener's process; nil = unknown
	Identity string         `json:"identity,omitempty"` // SPIFFE ID in the proxy's certificate; "" = unknown
	Expires  time.Time      `json:"expires,omitzero"`   // of that certificate
	Note     string         `json:"note,omitempty"`     // why Path or Identity is unknown
	Problem  *fault.Error   `json:"problem,omitempty"`  // what a person should know: a bypass, a proxy that is not ready
}

// Path is how the probe left the pod.
type Path string

// The paths.
const (
	ThroughProxy Path = "proxy"   // a listener in the pod took it
	Direct       Path = "direct"  // nothing in the pod touched it
	UnknownPath  Path = "unknown" // the agent could not tell
)

// meshTimeout bounds the look at the mesh; the agent's own limits are shorter.
const meshTimeout = 8 * time.Second

// lookAtMesh has the agent probe how connections leave the pod. A pod without a
// sidecar is probed once: its spec cannot change.
func (s *Session) lookAtMesh(ctx context.Context) {
	if last := s.mesh.Load(); last != nil && last.Proxy == "" && last.Path == Direct {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, meshTimeout)
	defer cancel()
	got, err := s.control.mesh(ctx, s.target.Mesh.Envoy)
	if ctx.Err() != nil {
		s.log.Debug("agent does not tell of the mesh in time", "err", err)
		return // what it told last is still the best that is known
	}
	if err != nil {
		// The agent is older, or its world has no meshes.
		s.log.Debug("agent does not tell of the mesh", "err", err)
		s.mesh.Store(nil)
		return
	}
	m := judge(s.target, got)
	s.mesh.Store(&m)
}

// judge compares what the agent found out with what the pod's spec says.
func judge(t *kube.Target, got wire.Mesh) Mesh {
	m := Mesh{
		Proxy: t.Mesh.Proxy, Probe: got.Path.To, Listener: got.Path.Via, Owner: got.Path.Owner,
		Identity: got.Identity.ID, Expires: got.Identity.Expires,
	}
	var reason, hint string
	switch {
	case got.Path.Via.IsValid():
		m.Path = ThroughProxy
		m.Note, reason = identityTrouble(t.Mesh, got.Identity)
		hint = logsOf(t)
	case got.Path.Connected && got.Path.Problem == "":
		m.Path = Direct
		reason, hint = bypass(t, got)
	default:
		m.Path, m.Note = UnknownPath, got.Path.Problem
		if t.Mesh.Proxy != "" && !got.Path.Connected {
			reason = "a connection from the pod cannot be opened: " + got.Path.Problem
			hint = logsOf(t)
		}
	}
	if reason != "" {
		m.Problem = &fault.Error{Code: fault.NoDataPath, ID: "BN3303", Op: "go through the mesh of", Object: "pod " + t.Namespace + "/" + t.Pod, Reason: reason, Hint: hint}
	}
	return m
}

// identityTrouble says why the proxy's identity is unknown, and what is wrong
// with it; mostly nothing.
func identityTrouble(spec kube.Mesh, id wire.Identity) (note, reason string) {
	switch {
	case id.ID != "" && time.Now().After(id.Expires):
		return "", "the certificate of " + spec.Proxy + " has expired at " + id.Expires.UTC().Format(time.RFC3339)
	case id.ID != "":
		return "", ""
	case spec.Envoy:
		return id.Problem, "the identity of " + spec.Proxy + " is unknown: " + id.Problem
	}
	return "borrownet reads the identity of Istio's sidecars alone", ""
}

// bypass says why a probe left the pod past its proxy. A pod that is in no mesh
// bypasses nothing.
func bypass(t *kube.Target, got wire.Mesh) (reason, hint string) {
	around := fmt.Sprintf("a connection to %s went past %s: ", got.Path.To, t.Mesh.Proxy)
	anew := "borrownet down --stop-agent, then up again"
	uid, gid := int64(got.UID), int64(got.GID)
	switch excluded := t.Mesh.Excludes(got.Path.To); {
	case t.Mesh.Proxy == "" && t.Mesh.Asked != "":
		return "the pod asks for a sidecar (" + t.Mesh.Asked + ") and has none: calls leave it without the mesh",
			fmt.Sprintf("kubectl -n %s get events --field-selector involvedObject.name=%s", t.Namespace, t.Pod)
	case t.Mesh.Proxy == "":
		return "", ""
	case slices.Contains(t.Mesh.UIDs, uid):
		return around + fmt.Sprintf("the agent runs as uid %d, which the mesh exempts as the proxy's own", uid), anew
	case slices.Contains(t.Mesh.GIDs, gid):
		return around + fmt.Sprintf("the agent runs in group %d, which the mesh exempts as the proxy's own", gid), anew
	case excluded != "":
		return around + "the pod takes it out of the mesh, " + excluded, "what is excluded for the pod is excluded for the session, and leaves as plaintext"
	}
	return around + "no rule in the pod has redirected it",
		fmt.Sprintf("kubectl -n %s describe pod %s, and look at what sets up its traffic redirection", t.Namespace, t.Pod)
}

func logsOf(t *kube.Target) string {
	return fmt.Sprintf("kubectl -n %s logs %s -c %s", t.Namespace, t.Pod, t.Mesh.Proxy)
}
