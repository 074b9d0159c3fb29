package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/agent/wire"
)

// Defaults of PolicyConfig.
const (
	DefaultPolicyName   = "borrownet-agent-only"
	DefaultPolicyLabel  = "borrownet.dev/agent-only=true"
	DefaultPolicyMaxTTL = 24 * time.Hour
)

// PolicyConfig says which agents a policy admits, and where. Images,
// Registries or Binaries must name something.
type PolicyConfig struct {
	Name       string        // of policy and binding; empty = DefaultPolicyName
	Label      string        // KEY=VALUE of the namespaces that it holds in; empty = DefaultPolicyLabel
	Images     []string      // REF@sha256:DIGEST: admitted under whatever name has the digest
	Registries []string      // registry, directory or repository below which every image is admitted
	Binaries   []Binary      // admitted in the image of a container of the pod, sent by the client
	NetRaw     bool          // agents may mirror: have NET_RAW for their helper
	Direct     bool          // agents may open a UDP port on the pod's address
	Attach     bool          // agents may have the link over attach: a standard input that stays open
	MaxTTL     time.Duration // longest --hard-ttl; 0 = DefaultPolicyMaxTTL
	// Metadata are addresses of metadata services that agents may be started for in
	// every pod; that of EKS Pod Identity may be in pods that use it.
	Metadata []netip.Addr
}

const policyHead = `# In labelled namespaces only borrownet's agent may be added to a pod as an ephemeral
# container; other namespaces are left alone. To put it in force in one:
#
#   kubectl label namespace NAME %s
#
# Why: who may patch pods/ephemeralcontainers may add any container to any pod, and its
# environment may name any Secret of the namespace. Without a policy like this one that
# right is the right to read every Secret of the namespace, and to run as whatever Pod
# Security lets pass.
`

// Policy returns the YAML of a ValidatingAdmissionPolicy, and of its binding,
// that admits as new ephemeral containers only what newContainer makes.
func Policy(cfg PolicyConfig) ([]byte, error) {
	if cfg.Name == "" {
		cfg.Name = DefaultPolicyName
	}
	if cfg.Label == "" {
		cfg.Label = DefaultPolicyLabel
	}
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = DefaultPolicyMaxTTL
	}
	image, err := imageRule(cfg)
	if err != nil {
		return nil, err
	}
	key, value, err := cfg.check()
	if err != nil {
		return nil, err
	}
	fail, equivalent := api.Fail, api.Equivalent
	policy := &api.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.AdmissionVersion, Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: cfg.Name},
		Spec: api.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &api.MatchResources{
				MatchPolicy: &equivalent,
				ResourceRules: []api.NamedRuleWithOperations{{RuleWithOperations: api.RuleWithOperations{
					Operations: []string{api.Create, api.Update},
					Rule:       api.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods/ephemeralcontainers"}},
				}}},
			},
			Variables: policyVariables(),
		},
	}
	for _, r := range policyRules(image, cfg) {
		policy.Spec.Validations = append(policy.Spec.Validations, api.Validation{
			Expression: "variables.added.all(c, " + r.expression + ")",
			Message:    "only borrownet's agent may be added: " + r.message,
		})
	}
	binding := &api.ValidatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.AdmissionVersion, Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: cfg.Name},
		Spec: api.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        cfg.Name,
			ValidationActions: []string{api.Deny},
			MatchResources: &api.MatchResources{
				MatchPolicy:       &equivalent,
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}},
			},
		},
	}
	first, err := document(policy)
	if err != nil {
		return nil, err
	}
	second, err := document(binding)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, policyHead+"%s---\n%s", cfg.Label, first, second), nil
}

func (cfg PolicyConfig) check() (key, value string, err error) {
	key, value, ok := strings.Cut(cfg.Label, "=")
	switch {
	case validation.IsDNS1123Subdomain(cfg.Name) != nil:
		return "", "", fmt.Errorf("%q is no name of a policy", cfg.Name)
	case !ok || validation.IsQualifiedName(key) != nil || validation.IsValidLabelValue(value) != nil:
		return "", "", fmt.Errorf("%q is no label: KEY=VALUE is wanted", cfg.Label)
	case cfg.MaxTTL < time.Second:
		return "", "", errors.New("the longest life of an agent is shorter than a second")
	}
	return key, value, nil
}

// Images as they may stand in an expression: nothing in them needs quoting.
var (
	pinnedImage = regexp.MustCompile(`^[a-zA-Z0-9][\w.:/-]*@(sha256:[0-9a-f]{64})$`)
	imagePrefix = regexp.MustCompile(`^[a-zA-Z0-9][\w.:/-]*$`)
)

// imageRule returns the condition on c.image. A container with a command is one
// that the client sends the agent's program to.
func imageRule(cfg PolicyConfig) (string, error) {
	var any []string
	for _, image := range cfg.Images {
		m := pinnedImage.FindStringSubmatch(image)
		if m == nil {
			return "", fmt.Errorf("image %q is not pinned: REF@sha256:DIGEST is wanted", image)
		}
		any = append(any, "c.image.endsWith('@"+m[1]+"')")
	}
	for _, prefix := range cfg.Registries {
		if !imagePrefix.MatchString(prefix) || strings.Contains(prefix, "//") {
			return "", fmt.Errorf("%q is neither a registry nor something in one", prefix)
		}
		// Whole parts of the name only: example.org/team must not let
		// example.org/team-of-others pass, nor example.org another port.
		prefix = strings.TrimSuffix(prefix, "/")
		any = append(any, "c.image.startsWith('"+prefix+"/')")
		if strings.Contains(prefix, "/") {
			any = append(any, "c.image == '"+prefix+"'", "c.image.startsWith('"+prefix+":')", "c.image.startsWith('"+prefix+"@')")
		}
	}
	rule := strings.Join(any, " || ")
	if len(cfg.Binaries) == 0 {
		if rule == "" {
			return "", errors.New("no image is named: a policy without one would admit every image")
		}
		return rule, nil
	}
	for _, b := range cfg.Binaries {
		if !patternBinary.MatchString(b.String()) {
			return "", fmt.Errorf("%q is not a program's ARCH:SIZE:SHA256", b)
		}
	}
	if rule == "" {
		rule = "false"
	}
	return "has(c.command) ? variables.containers.exists(t, t.image == c.image) : (" + rule + ")", nil
}

// programRule returns the condition on what c executes and with which input.
func programRule(cfg PolicyConfig) policyRule {
	lit := func(s string) string { return "'" + s + "'" }
	args := func(first int) string {
		at := func(i int) string { return fmt.Sprintf("c.args[%d]", first+i) }
		metadata := func(size int) string {
			return fmt.Sprintf("c.args.size() == %d", size) +
				" && " + at(6) + " == " + lit(metadataFlag) + " && " + at(7) + ".split(',').all(a, " + cfg.metadataRule() + ")"
		}
		more := fmt.Sprintf("c.args.size() == %d || %s", first+6, metadata(first+8))
		if cfg.Direct {
			more += fmt.Sprintf(" || c.args.size() == %d && %s == %s || %s && %s == %s",
				first+7, at(6), lit(wire.DirectFlag), metadata(first+9), at(8), lit(wire.DirectFlag))
		}
		return "has(c.args) && (" + more + ")" +
			" && " + at(0) + " == '--client-key' && " + at(1) + ".matches(" + lit(patternKey) + ")" +
			" && " + at(2) + " == '--idle-ttl' && " + at(3) + ".matches(" + lit(patternDuration) + ")" +
			" && " + at(4) + " == '--hard-ttl' && " + at(5) + ".matches(" + lit(patternDuration) + ")" +
			" && duration(" + at(5) + ") <= duration(" + lit(cfg.MaxTTL.String()) + ")"
	}
	once := " && has(c.stdinOnce) && c.stdinOnce"
	if cfg.Attach {
		once = ""
	}
	r := policyRule{"!has(c.command) && !has(c.workingDir) && " + args(0),
		"its arguments are --client-key, --idle-ttl and --hard-ttl, the last at most " + cfg.MaxTTL.String() + ", and it has no command; " +
			metadataFlag + " names nothing but " + cfg.metadataText()}
	if len(cfg.Binaries) == 0 {
		return r
	}
	var words, known []string
	for _, word := range receiver() {
		words = append(words, strconv.Quote(word)) // CEL has Go's escapes
	}
	for _, b := range cfg.Binaries {
		known = append(known, lit(b.String()))
	}
	slices.Sort(known)
	return policyRule{"!has(c.workingDir) && (has(c.command) ? c.command == [" + strings.Join(words, ", ") + "]" +
		" && " + args(1) + " && c.args[0].split(',').all(b, b in [" + strings.Join(known, ", ") + "])" +
		" && has(c.stdin) && c.stdin" + once +
		" : " + args(0) + ")",
		r.message + ", or the command that starts one of the programs that the policy names once it is checked"}
}

// metadataRule returns the condition on an address a that an agent is started for.
// The container whose environment an agent has may be any of the pod's.
func (cfg PolicyConfig) metadataRule() string {
	rule := fmt.Sprintf("a in ['%s', '%s'] && variables.containers.exists(t, has(t.env) && t.env.exists(e, e.name == '%s'))", eksAgent4, eksAgent6, eksURI)
	if len(cfg.Metadata) == 0 {
		return rule
	}
	return "a in ['" + strings.Join(texts(cfg.Metadata), "', '") + "'] || " + rule
}

func (cfg PolicyConfig) metadataText() string {
	return strings.Join(append(texts(cfg.Metadata), "the agent of EKS Pod Identity in pods that use it"), ", ")
}

// policyVariables are computed once for a request. What is there already can
// be neither changed nor removed and is not judged; the pod is read from the
// old object, in which the request has no say.
func policyVariables() []api.Variable {
	proxies := "'" + strings.Join(proxyContainers(), "', '") + "'"
	return []api.Variable{
		{Name: "known", Expression: "has(oldObject.spec.ephemeralContainers) ? oldObject.spec.ephemeralContainers.map(c, c.name) : []"},
		{Name: "added", Expression: "has(object.spec.ephemeralContainers) ? object.spec.ephemeralContainers.filter(c, !(c.name in variables.known)) : []"},
		{Name: "containers", Expression: "oldObject.spec.containers + (has(oldObject.spec.initContainers) ?" +
			" oldObject.spec.initContainers.filter(i, has(i.restartPolicy) && i.restartPolicy == 'Always') : [])"},
		{Name: "proxies", Expression: "variables.containers.filter(p, p.name in [" + proxies + "])"},
		{Name: "podUID", Expression: "has(oldObject.spec.securityContext) && has(oldObject.spec.securityContext.runAsUser) ? oldObject.spec.securityContext.runAsUser : -1"},
		{Name: "podGID", Expression: "has(oldObject.spec.securityContext) && has(oldObject.spec.securityContext.runAsGroup) ? oldObject.spec.securityContext.runAsGroup : -1"},
	}
}

// policyRule is what must hold for each added container c.
type policyRule struct{ expression, message string }

// Patterns of the agent's arguments.
const (
	patternKey      = `^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$` // 32 bytes in base64
	patternDuration = `^([0-9]+h)?([0-9]+m)?([0-9]+s)?$`
	patternSpec     = `^[0-9a-f]{16}$`
)

// policyRules says in CEL what newContainer does. The two must change together:
// the lab's tests hold one against the other. A message states the rule.
func policyRules(image string, cfg PolicyConfig) []policyRule {
	lit := func(s string) string { return "'" + s + "'" }
	// A container that is sent its program needs what others do not get.
	unlessSent := func(condition string) string {
		if len(cfg.Binaries) == 0 {
			return condition
		}
		return "(has(c.command) || " + condition + ")"
	}
	streams, stdin := "it shares no process namespace, has no terminal, standard input or devices", " && "+unlessSent("(!has(c.stdin) || !c.stdin)")
	if cfg.Attach {
		streams, stdin = "it shares no process namespace, has no terminal or devices", ""
	}
	return []policyRule{
		{"c.name.startsWith(" + lit(agentPrefix) + ")", "its name begins with " + agentPrefix},
		{image, "its image is one that the policy names"},
		programRule(cfg),
		{"!has(c.targetContainerName) && !has(c.volumeDevices) && !has(c.lifecycle)" +
			stdin + " && (!has(c.tty) || !c.tty)", streams},
		{"has(c.env) && c.env.all(e, !e.name.startsWith(" + lit(envPrefix) + ")" +
			" || e.name == " + lit(envSpec) + " && has(e.value) && e.value.matches(" + lit(patternSpec) + ")" +
			" || e.name in [" + lit(envHostIP) + ", " + lit(envPodIPs) + "] && has(e.valueFrom) && has(e.valueFrom.fieldRef)" +
			" && e.valueFrom.fieldRef.fieldPath == (e.name == " + lit(envHostIP) + " ? 'status.hostIP' : 'status.podIPs'))" +
			" && c.env.exists(e, e.name == " + lit(envHostIP) + ")",
			"its own variables " + envHostIP + ", " + envPodIPs + " and " + envSpec + " are what borrownet makes them"},
		{"variables.containers.exists(t," +
			" c.env.all(e, e.name.startsWith(" + lit(envPrefix) + ") || has(t.env) && (e in t.env || has(e.valueFrom) && has(e.valueFrom.resourceFieldRef)" +
			" && t.env.exists(x, x.name == e.name && has(x.valueFrom) && has(x.valueFrom.resourceFieldRef) && x.valueFrom.resourceFieldRef.resource == e.valueFrom.resourceFieldRef.resource)))" +
			" && (!has(c.envFrom) || has(t.envFrom) && c.envFrom.all(f, f in t.envFrom))" +
			" && (!has(c.volumeMounts) || has(t.volumeMounts) && c.volumeMounts.all(m, m in t.volumeMounts)))",
			"its env, envFrom and volumeMounts are among those of one container of the pod"},
		{"has(c.securityContext) && (!has(c.securityContext.privileged) || !c.securityContext.privileged)", "it is not privileged"},
		capabilityRule(cfg),
		{"has(c.securityContext) && has(c.securityContext.runAsNonRoot) && c.securityContext.runAsNonRoot" +
			" && (!has(c.securityContext.runAsUser) || c.securityContext.runAsUser > 0)" +
			" && " + unlessSent("has(c.securityContext.readOnlyRootFilesystem) && c.securityContext.readOnlyRootFilesystem") +
			" && has(c.securityContext.seccompProfile) && c.securityContext.seccompProfile.type == 'RuntimeDefault'" +
			" && (!has(c.securityContext.procMount) || c.securityContext.procMount == 'Default')" +
			" && !has(c.securityContext.seLinuxOptions) && !has(c.securityContext.appArmorProfile) && !has(c.securityContext.windowsOptions)",
			"it does not run as root, has a read-only root and the runtime's seccomp profile, and no other confinement than the pod's"},
		{"has(c.securityContext) && " + notProxy("runAsUser", "podUID") + " && " + notProxy("runAsGroup", "podGID"),
			"it has neither the uid nor the gid of the pod's mesh proxy, which bypass the mesh"},
	}
}

// capabilityRule returns the condition on c's capabilities, and on whether it may
// gain some from files: see addNetRaw and keepNetRaw.
func capabilityRule(cfg PolicyConfig) policyRule {
	var others []string
	for _, name := range otherDefaults() {
		others = append(others, "'"+name+"'")
	}
	const sc = "c.securityContext"
	adds := "has(" + sc + ".capabilities.add) && " + sc + ".capabilities.add.size() > 0"
	given := "has(" + sc + ") && has(" + sc + ".capabilities) && has(" + sc + ".capabilities.drop) && has(" + sc + ".allowPrivilegeEscalation)"
	none := "!" + sc + ".allowPrivilegeEscalation && 'ALL' in " + sc + ".capabilities.drop && !(" + adds + ")"
	if !cfg.NetRaw {
		return policyRule{given + " && " + none, "it drops ALL capabilities, adds none and does not escalate privileges"}
	}
	return policyRule{given + " && (" + none + " || !has(c.command)" +
		" && ('ALL' in " + sc + ".capabilities.drop && has(" + sc + ".capabilities.add) && " + sc + ".capabilities.add == ['" + netRaw + "']" +
		" || " + sc + ".capabilities.drop == [" + strings.Join(others, ", ") + "] && !(" + adds + ")))",
		"it drops ALL capabilities but " + netRaw + ", and escalates no privileges without that"}
}

// notProxy is the condition that an id of c is no mesh proxy's.
func notProxy(field, fallback string) string {
	id := "(has(c.securityContext." + field + ") ? c.securityContext." + field + " : variables." + fallback + ")"
	proxy := "(has(p.securityContext) && has(p.securityContext." + field + ") ? p.securityContext." + field + " : variables." + fallback + ")"
	return fmt.Sprintf("!(%[1]s in [%[2]d, %[3]d]) && !variables.proxies.exists(p, %[4]s != -1 && %[4]s == %[1]s)", id, istioID, linkerdID, proxy)
}
