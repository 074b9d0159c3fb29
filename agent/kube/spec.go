package kube

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/agent/wire"
)

const (
	agentPrefix = "borrownet-agent-"

	// Variables that the agent's container has besides those of the borrowed
	// one. All begin with envPrefix.
	envPrefix = "BORROWNET_"
	envHostIP = envPrefix + "HOST_IP" // the agent denies the kubelet there
	envPodIPs = envPrefix + "POD_IPS"
	envSpec   = envPrefix + "SPEC" // fingerprint, survives what admission rewrites

	metadataFlag = "--metadata" // of the agent
)

// complete fills defaults in and refuses a spec that cannot work.
func (s AgentSpec) complete() (AgentSpec, error) {
	fail := func(reason, hint string) (AgentSpec, error) {
		return s, &Error{Op: "place", Object: "agent", Reason: reason, Hint: hint}
	}
	if s.IdleTTL == 0 {
		s.IdleTTL = 15 * time.Minute
	}
	if s.HardTTL == 0 {
		s.HardTTL = 8 * time.Hour
	}
	if s.PullTimeout == 0 {
		s.PullTimeout = 12 * time.Second
	}
	key, err := base64.StdEncoding.DecodeString(s.ClientKey)
	switch {
	case s.Image == "":
		return fail("no agent image is named", "give --agent-image REF or set BORROWNET_AGENT_IMAGE")
	case strings.TrimSpace(s.Image) != s.Image:
		return fail(fmt.Sprintf("image %q has spaces around it", s.Image), "give --agent-image REF")
	case s.Image == TargetImage && len(s.Binaries) == 0:
		return fail("there is no binary of the agent to send", "")
	case slices.ContainsFunc(s.Binaries, func(b Binary) bool { return !patternBinary.MatchString(b.String()) }):
		return fail("a binary of the agent has no architecture, size or SHA-256", "")
	case err != nil || len(key) != 32:
		return fail("the client's key is no WireGuard public key", "")
	case s.IdleTTL < time.Second || s.HardTTL < time.Second || s.PullTimeout < time.Second:
		return fail("a time limit is shorter than a second", "")
	}
	return s, nil
}

// build returns the ephemeral container for an agent in pod, and what the
// user should know about it.
func (c *Client) build(ctx context.Context, pod *api.Pod, container string, spec AgentSpec) (*api.EphemeralContainer, string, error) {
	from, err := c.findContainer(pod, container)
	if err != nil {
		return nil, "", err
	}
	assigned := false
	if uid, _ := idsOf(pod, from); uid == nil || *uid == 0 {
		assigned = c.assignsUIDs(ctx, pod.Namespace)
	}
	id := chooseIdentity(pod, from, assigned)
	ec := newContainer(borrowedFrom(pod, from), spec, id)
	ec.Name = c.freeName(pod)
	return ec, id.note, nil
}

// assignsUIDs reports whether the cluster gives pods of a namespace their
// uids (OpenShift). Who may not read the namespace gets the usual answer, no.
func (c *Client) assignsUIDs(ctx context.Context, namespace string) bool {
	var ns api.Namespace
	err := c.do(ctx, request{verb: "get", resource: "namespaces", name: namespace}, &ns)
	if err != nil {
		c.log.Debug("read namespace", "namespace", namespace, "err", err)
	}
	return err == nil && ns.Annotations[sccRange] != ""
}

// newContainer returns the ephemeral container of an agent, without a name. It
// has the mounts of from.
// Fields that the API server would fill in are set, so that what is written
// is what is read back.
func newContainer(from *api.Container, spec AgentSpec, id identity) *api.EphemeralContainer {
	yes, no := true, false
	ec := &api.EphemeralContainer{
		Image: spec.Image,
		Args: []string{
			"--client-key", spec.ClientKey,
			"--idle-ttl", spec.IdleTTL.String(),
			"--hard-ttl", spec.HardTTL.String(),
		},
		VolumeMounts:             from.VolumeMounts,
		EnvFrom:                  from.EnvFrom,
		Env:                      copyEnv(from),
		ImagePullPolicy:          api.PullIfNotPresent,
		TerminationMessagePath:   api.TerminationMessagePathDefault,
		TerminationMessagePolicy: api.TerminationMessageReadFile,
		SecurityContext: &api.SecurityContext{
			Capabilities:             &api.Capabilities{Drop: []string{"ALL"}},
			RunAsUser:                id.uid,
			RunAsGroup:               id.gid,
			RunAsNonRoot:             &yes,
			ReadOnlyRootFilesystem:   &yes,
			AllowPrivilegeEscalation: &no,
			SeccompProfile:           &api.SeccompProfile{Type: api.SeccompProfileTypeRuntimeDefault},
		},
	}
	if len(spec.Localhost) > 0 {
		ec.Args = append(ec.Args, "--localhost", joinPorts(spec.Localhost))
	}
	if len(spec.Metadata) > 0 {
		ec.Args = append(ec.Args, metadataFlag, joinAddrs(spec.Metadata))
	}
	if spec.Direct {
		ec.Args = append(ec.Args, wire.DirectFlag)
	}
	if spec.Image == TargetImage {
		useTargetImage(ec, from.Image, spec.Binaries)
	}
	ec.Env = append(ec.Env, api.EnvVar{Name: envSpec, Value: fingerprint(ec, from.Name)})
	if spec.Stdio {
		takeStdio(ec)
	}
	if spec.NetRaw {
		addNetRaw(ec)
	}
	return ec
}

// joinPorts is what the agent's --localhost takes, the same for the same ports.
func joinPorts(ports []uint16) string {
	sorted := slices.Clone(ports)
	slices.Sort(sorted)
	var words []string
	for _, p := range slices.Compact(sorted) {
		words = append(words, strconv.Itoa(int(p)))
	}
	return strings.Join(words, ",")
}

// joinAddrs is what the agent's --metadata takes, the same for the same addresses.
func joinAddrs(addrs []netip.Addr) string {
	return strings.Join(texts(addrs), ",")
}

// texts returns addrs sorted, each once.
func texts(addrs []netip.Addr) []string {
	var words []string
	for _, a := range slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)) {
		words = append(words, a.String())
	}
	return words
}

// copyEnv returns the variables of a container for the agent beside it.
func copyEnv(from *api.Container) []api.EnvVar {
	var out []api.EnvVar
	for _, v := range from.Env {
		if strings.HasPrefix(v.Name, envPrefix) {
			continue
		}
		if v.ValueFrom != nil && v.ValueFrom.ResourceFieldRef != nil && v.ValueFrom.ResourceFieldRef.ContainerName == "" {
			source, field := *v.ValueFrom, *v.ValueFrom.ResourceFieldRef
			field.ContainerName = from.Name // whose resources it has: the agent has none
			source.ResourceFieldRef = &field
			v.ValueFrom = &source
		}
		out = append(out, v)
	}
	field := func(name, path string) api.EnvVar {
		return api.EnvVar{Name: name, ValueFrom: &api.EnvVarSource{
			FieldRef: &api.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	return append(out, field(envHostIP, "status.hostIP"), field(envPodIPs, "status.podIPs"))
}

// fingerprint identifies all that was asked of an agent, except NET_RAW and standard
// streams for carriers, which ec does not have yet: an agent that has more than is
// asked will do. container is the borrowed one.
func fingerprint(ec *api.EphemeralContainer, container string) string {
	b, err := json.Marshal(struct {
		Container string
		Agent     *api.EphemeralContainer
	}{container, ec})
	if err != nil { // plain data always encodes
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// freeName returns a name that no container of pod has.
func (c *Client) freeName(pod *api.Pod) string {
	var taken []string
	for _, ct := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		taken = append(taken, ct.Name)
	}
	for _, ec := range pod.Spec.EphemeralContainers {
		taken = append(taken, ec.Name)
	}
	for {
		if name := agentPrefix + c.suffix(); !slices.Contains(taken, name) {
			return name
		}
	}
}

// isAgent reports whether an ephemeral container is an agent of ours.
func isAgent(ec *api.EphemeralContainer) bool {
	return strings.HasPrefix(ec.Name, agentPrefix) && envValue(ec, envSpec) != ""
}

func envValue(ec *api.EphemeralContainer, name string) string {
	for _, v := range ec.Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

// serves reports whether the agent ec does all that want asks for.
func serves(ec, want *api.EphemeralContainer) bool {
	return isAgent(ec) && envValue(ec, envSpec) == envValue(want, envSpec) &&
		slices.Equal(ec.Args, want.Args) && (hasNetRaw(ec) || !hasNetRaw(want)) && (hasStdio(ec) || !hasStdio(want))
}

// takeStdio makes standard streams of an agent for carriers.
func takeStdio(ec *api.EphemeralContainer) { ec.Stdin, ec.StdinOnce = true, false }

// takesStdio is hasStdio of the container of that name.
func takesStdio(pod *api.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(ec api.EphemeralContainer) bool { return ec.Name == name && hasStdio(&ec) })
}

// hasStdio reports whether an agent's standard streams take carriers: its standard
// input stays open when a client leaves.
func hasStdio(ec *api.EphemeralContainer) bool { return ec.Stdin && !ec.StdinOnce }
