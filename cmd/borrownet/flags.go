package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/bundle"
	"github.com/borrownet/borrownet/cmd/internal/demo"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/cmd/internal/settings"
	"github.com/borrownet/borrownet/hook"
)

const imageVar = "BORROWNET_AGENT_IMAGE"

// targetFlags are the flags of up, and of a run that may have to up.
type targetFlags struct {
	pod, container, session string
	image, hook             string
	idleTTL, hardTTL        time.Duration
	stay, direct            bool
	file                    *settings.Settings // nil = that of the working directory
	kube                    kube.Flags
	routing                 routingFlags
	mirror                  mirrorFlags
	guard                   guardFlags
}

func (t *targetFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.pod, "pod", "", "`TARGET` to borrow: pod, TYPE/NAME or bare name")
	f.StringVarP(&t.container, "container", "c", "", "`NAME` of the container whose environment is borrowed (default: the pod's default container)")
	f.StringVar(&t.session, "session", "", "`NAME` of the session (default: that of the workload or pod)")
	f.BoolVar(&t.stay, "stay", false, "stay with this pod: when it goes the session is lost, instead of going on at another pod of the workload")
	f.BoolVar(&t.direct, "direct", false, "carry the link over UDP while the pod's address can be reached from here: the agent opens a port there that answers nobody else")
	t.addAgent(cmd)
	t.routing.add(cmd)
	t.mirror.add(cmd)
	t.guard.add(cmd)
	t.addKube(cmd)
	complete(cmd, "pod", t.completeTargets)
	complete(cmd, "container", t.completeContainers)
}

// addAgent adds the flags that say how a target is borrowed, whichever it is.
func (t *targetFlags) addAgent(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.image, "agent-image", "", "`IMAGE` of the agent; target = that of the borrowed container, and the agent is sent into it")
	f.StringVar(&t.hook, "hook", string(hook.Auto), "`RUNG` by which programs enter the session: "+rungNames())
	f.DurationVar(&t.idleTTL, "idle-ttl", 15*time.Minute, "`TIME` after which an agent without a client leaves")
	f.DurationVar(&t.hardTTL, "hard-ttl", 8*time.Hour, "`TIME` after which an agent leaves in any case")
	complete(cmd, "hook", completeRungs)
}

// addKube adds the flags that kubectl has for the choice of a cluster.
func (t *targetFlags) addKube(cmd *cobra.Command) {
	f, k := cmd.Flags(), &t.kube
	f.StringVar(&k.Kubeconfig, "kubeconfig", "", "`FILE` to use instead of $KUBECONFIG")
	f.StringVar(&k.Context, "context", "", "`NAME` of the kubeconfig context")
	f.StringVar(&k.Cluster, "cluster", "", "`NAME` of the kubeconfig cluster")
	f.StringVar(&k.User, "user", "", "`NAME` of the kubeconfig user")
	f.StringVarP(&k.Namespace, "namespace", "n", "", "`NAMESPACE` of the target")
	f.StringVarP(&k.Server, "server", "s", "", "`URL` of the API server")
	f.StringVar(&k.Token, "token", "", "bearer `TOKEN` for the API server")
	f.StringVar(&k.TLSServerName, "tls-server-name", "", "`NAME` in the API server's certificate")
	f.StringVar(&k.CertificateAuthority, "certificate-authority", "", "`FILE` with the API server's authority")
	f.StringVar(&k.ClientCertificate, "client-certificate", "", "`FILE` with the client certificate")
	f.StringVar(&k.ClientKey, "client-key", "", "`FILE` with the client certificate's key")
	f.BoolVar(&k.InsecureSkipVerify, "insecure-skip-tls-verify", false, "accept any certificate of the API server")
	f.StringVar(&k.As, "as", "", "`USER` to impersonate")
	f.StringVar(&k.AsUID, "as-uid", "", "`UID` to impersonate")
	f.StringArrayVar(&k.AsGroups, "as-group", nil, "`GROUP` to impersonate; may be repeated")
	f.DurationVar(&k.RequestTimeout, "request-timeout", 0, "`TIME` that one request to the API server may take")
	complete(cmd, "namespace", t.completeNamespaces)
	complete(cmd, "context", t.completeContexts)
}

var (
	sessionName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	imageName   = regexp.MustCompile(`^[a-zA-Z0-9]([\w.:/@-]*[\w])?$`)
)

// request checks the flags and returns what they ask for.
func (t *targetFlags) request(name string) (session.Request, error) {
	switch {
	case t.pod == "":
		return session.Request{}, usage("no pod is named", name+" --pod NAME")
	case t.session != "" && !sessionName.MatchString(t.session):
		return session.Request{}, usage(fmt.Sprintf("--session %q: not lower-case letters, digits, - and ., 63 at most", t.session), name+" --pod "+t.pod+" --session mine")
	case !t.rungKnown():
		return session.Request{}, t.rungMistake(name)
	case t.idleTTL <= 0 || t.hardTTL <= 0:
		return session.Request{}, usage("--idle-ttl and --hard-ttl must be positive", name+" --pod "+t.pod+" --idle-ttl 15m --hard-ttl 8h")
	case t.idleTTL > t.hardTTL:
		return session.Request{}, usage(fmt.Sprintf("--idle-ttl %v is longer than --hard-ttl %v", t.idleTTL, t.hardTTL), name+" --pod "+t.pod+" --hard-ttl "+t.idleTTL.String())
	}
	image, binaries, err := t.agent(name)
	if err != nil {
		return session.Request{}, err
	}
	k, err := absolute(t.kube)
	if err != nil {
		return session.Request{}, err
	}
	req := session.Request{
		Name: t.session, Ref: t.pod, Container: t.container, Kube: k, Image: image, Binaries: binaries, Hook: session.Rung(t.hook), IdleTTL: t.idleTTL, HardTTL: t.hardTTL,
		Stay: t.stay, Direct: t.direct,
	}
	file, err := t.settings()
	if err != nil {
		return session.Request{}, err
	}
	if err := t.mirror.apply(&req, name+" --pod "+t.pod); err != nil {
		return session.Request{}, err
	}
	if err := t.guard.apply(&req, name+" --pod "+t.pod); err != nil {
		return session.Request{}, err
	}
	return req, t.routing.apply(&req, file.Routing, name+" --pod "+t.pod)
}

// settings are those of the file that t is of, else of the working directory's.
func (t *targetFlags) settings() (settings.Settings, error) {
	if t.file != nil {
		return *t.file, nil
	}
	return settings.Read(settings.Name)
}

func (t *targetFlags) rungKnown() bool { return slices.Contains(hook.Rungs(), hook.Rung(t.hook)) }

func (t *targetFlags) rungMistake(name string) error {
	return usage("--hook "+t.hook+": not "+rungNames(), name+" --hook auto")
}

// rungNames lists what --hook takes.
func rungNames() string {
	var names []string
	for _, r := range hook.Rungs() {
		names = append(names, string(r))
	}
	return either(names)
}

// checkRung refuses a session that does not have what the rung asked for needs.
func (t *targetFlags) checkRung(place session.Place) error {
	want := hook.Rung(t.hook)
	if err := takesPrograms(place.Session, place.Hook); err != nil {
		return err
	}
	if want == hook.Auto || want.Relayed() == place.Hook.Relayed() {
		return nil
	}
	return usage(fmt.Sprintf("session %s has hook %s, not %s", place.Session, place.Hook, want),
		"borrownet down "+place.Session+", then borrownet up with --hook "+t.hook)
}

// takesPrograms refuses a session that is for forwards and proxies alone.
func takesPrograms(name string, rung hook.Rung) error {
	if rung != hook.None {
		return nil
	}
	return &fault.Error{Code: fault.Hook, ID: "BN2105", Op: "run programs in session", Object: name, Reason: "it has hook none: it is for forwards and proxies",
		Hint: forwardInstead(name)}
}

// forwardInstead is what there is to do with a session that takes no programs.
func forwardInstead(name string) string {
	return "borrownet forward --session " + name + " 8080:SERVICE:80, or borrownet forward --session " + name + " --socks5 1080"
}

// agent finds the image's name, and the programs that may be sent into the target's
// own. The demo's agents need neither, and a cluster of that name refuses to do
// without.
func (t *targetFlags) agent(name string) (image string, binaries []kube.Binary, err error) {
	if selectsDemo(t.kube) {
		return "", nil, nil
	}
	if image, err = t.agentImage(name); err == nil && image == kube.TargetImage {
		binaries, err = carried()
	}
	return image, binaries, err
}

// agentImage finds the image's name: flag, environment, file.
func (t *targetFlags) agentImage(name string) (string, error) {
	image, from := t.image, "--agent-image"
	if image == "" {
		image, from = os.Getenv(imageVar), imageVar
	}
	if image == "" {
		file, err := t.settings()
		if err != nil {
			return "", err
		}
		image, from = file.AgentImage, "agentImage in "+settings.Name
	}
	if image == "" && t.kube.Context == "" && demoRunning() != nil {
		return "", usage("no agent image is named", "a demo is running, to use it add --context "+demo.Context)
	}
	if image == "" {
		return "", &fault.Error{Code: fault.Usage, ID: "BN0201", Reason: "no agent image is named, and none is published", Hint: "without an image: " + name + " --pod " + t.pod + " --agent-image target (sends the agent into the pod, past image policy)\n" +
			"with one: make agent-image, push it to a registry that the cluster reads, then " + name + " --pod " + t.pod + " --agent-image REGISTRY/borrownet-agent:TAG"}
	}
	if len(image) > 512 || !imageName.MatchString(image) {
		return "", usage(fmt.Sprintf("%s: %q is not the name of an image", from, image), name+" --pod "+t.pod+" --agent-image REGISTRY/borrownet-agent:TAG")
	}
	return image, nil
}

// carried returns the agents that --agent-image target may send.
func carried() ([]kube.Binary, error) {
	binaries, err := bundle.Find()
	if err != nil {
		return nil, &fault.Error{Code: fault.Agent, Op: "find", Object: "the agent's program", Reason: err.Error(), Err: err,
			Hint: "build it again beside the client: make build"}
	}
	if len(binaries) == 0 {
		return nil, &fault.Error{Code: fault.Agent, ID: "BN1207", Op: "find", Object: "the agent's program", Reason: "there is no borrownet-agent beside this borrownet",
			Hint: "make build makes both in bin/; install them into the same directory"}
	}
	return binaries, nil
}

// absolute makes every path in f independent of the working directory, which the
// daemon does not share, and gives f this process's environment.
func absolute(f kube.Flags) (kube.Flags, error) {
	for _, path := range []*string{&f.Kubeconfig, &f.CertificateAuthority, &f.ClientCertificate, &f.ClientKey} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return f, fmt.Errorf("working directory: %w", err)
		}
		*path = abs
	}
	f.Env = os.Environ()
	for i, kv := range f.Env {
		list, ok := strings.CutPrefix(kv, "KUBECONFIG=")
		if !ok {
			continue
		}
		paths := filepath.SplitList(list)
		for j, p := range paths {
			if abs, err := filepath.Abs(p); err == nil && p != "" {
				paths[j] = abs
			}
		}
		f.Env[i] = "KUBECONFIG=" + strings.Join(paths, string(filepath.ListSeparator))
	}
	return f, nil
}
