package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/netstack/wg"
)

// Opener finds targets. Its fields must not change once it is used.
type Opener struct {
	Dir    *rundir.Dir
	Keys   *Keys
	Helper []string     // argument vector that ends in netns.Main
	Logger *slog.Logger // nil discards
	// Connect finds the cluster that a request is for; nil means Kubernetes.
	Connect Connect
	// Grace is how long a session waits for a carrier before it attaches anew; 0 = 180 s.
	Grace time.Duration
}

// Connect returns the cluster that flags select. It asks the cluster nothing.
type Connect func(kube.Flags) (Cluster, error)

// Kubernetes is the Connect that reads a kubeconfig.
func Kubernetes(flags kube.Flags) (Cluster, error) {
	c, err := kube.New(flags)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Observer is told what happens to a session. Its functions must not block.
type Observer struct {
	Step  func(string)
	State func(State, *fault.Error)
	// Moved is told when the session goes on at another pod, after it became Ready there; nil is told nothing.
	Moved func(Move)
}

// Opening is a target that is about to be borrowed.
type Opening struct {
	opener  *Opener
	req     Request
	cluster cluster
	target  *kube.Target
	log     *slog.Logger
}

// Cluster is what targets are found in and borrowed from. kube.Client is one.
type Cluster interface {
	cluster
	// Context is the name that selected the cluster, Namespace where names are
	// looked up.
	Context() string
	Namespace() string
	Resolve(ctx context.Context, ref, container string) (*kube.Target, error)
	Plan(ctx context.Context, t *kube.Target, spec kube.AgentSpec) ([]byte, error)
}

// cluster is what a session needs of a Cluster.
type cluster interface {
	Attach(ctx context.Context, t *kube.Target, spec kube.AgentSpec, progress func(string)) (*kube.Agent, error)
	Dial(ctx context.Context, t *kube.Target, a *kube.Agent, use kube.Use) (kube.Carrier, error)
	Fate(ctx context.Context, t *kube.Target) (kube.Fate, error)
	Successor(ctx context.Context, t *kube.Target) (*kube.Target, error)
	Close() error
}

// Open finds the target of req. It changes nothing anywhere.
func (o *Opener) Open(ctx context.Context, req Request, step func(string)) (*Opening, error) {
	log := o.logger()
	client, target, err := resolve(ctx, o.Connect, req, log, step)
	if err != nil {
		return nil, err
	}
	return &Opening{opener: o, req: req, cluster: client, target: target, log: log.With("target", target.Namespace+"/"+target.Pod)}, nil
}

func (o *Opener) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

func resolve(ctx context.Context, connect Connect, req Request, log *slog.Logger, step func(string)) (Cluster, *kube.Target, error) {
	flags := req.Kube
	flags.Logger = log
	if connect == nil {
		connect = Kubernetes
	}
	client, err := connect(flags)
	if err != nil {
		return nil, nil, Explain(err)
	}
	step("finding " + req.Ref + " in namespace " + client.Namespace() + " of " + client.Context())
	target, err := client.Resolve(ctx, req.Ref, req.Container)
	if err != nil {
		return nil, nil, errors.Join(Explain(err), client.Close())
	}
	return client, target, nil
}

// Plan returns, as YAML, what a session of req would change in its target, and
// an error if it would fail; often both. It changes nothing anywhere and needs
// no daemon. connect may be nil.
func Plan(ctx context.Context, connect Connect, req Request) ([]byte, error) {
	client, target, err := resolve(ctx, connect, req, slog.New(slog.DiscardHandler), func(string) {})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	spec := req.Spec(target, wg.NewPrivateKey().Public().String())
	text, err := client.Plan(ctx, target, spec)
	if !errors.Is(err, kube.ErrNetRaw) {
		return append(mirrorPlan(target, req.Mirror), text...), Explain(err)
	}
	refused := fault.From(Explain(err))
	spec.NetRaw = false
	text, err = client.Plan(ctx, target, spec)
	return append(fmt.Appendf(nil, "# not mirrored: %s\n# hint: %s\n", oneLine(refused.Error()), oneLine(refused.Hint)), text...), Explain(err)
}

// mirrorPlan says, as comments, what would be copied.
func mirrorPlan(t *kube.Target, list []Mirror) (out []byte) {
	for _, m := range list {
		where := "on the pod's interface"
		if t.Mesh.Serves(m.Port) {
			where = "behind " + t.Mesh.Proxy
		}
		out = fmt.Appendf(out, "# port %d of the pod would be copied, %s, to port %d of this machine\n", m.Port, where, m.To)
	}
	return out
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Spec is the agent that a session of r has in its target.
func (r Request) Spec(t *kube.Target, clientKey string) kube.AgentSpec {
	return kube.AgentSpec{
		Image: r.Image, Binaries: r.Binaries, ClientKey: clientKey, IdleTTL: r.IdleTTL, HardTTL: r.HardTTL,
		Direct: r.Direct, Localhost: r.RemoteLocalhost, Metadata: append(t.Cloud.Endpoints(), r.Metadata...), NetRaw: len(r.Mirror) > 0,
	}
}

// again is the command that borrows the target of r anew.
func (r Request) again(t *kube.Target) string {
	ref := t.Workload
	if ref == "" {
		ref = r.Ref
	}
	words := []string{"borrownet up --pod", ref, "-n", t.Namespace}
	if r.Kube.Context != "" {
		words = append(words, "--context", r.Kube.Context)
	}
	if r.Name != "" {
		words = append(words, "--session", r.Name)
	}
	return strings.Join(words, " ")
}

// Name is what a session of the target is called by default: as its workload.
func (o *Opening) Name() string {
	if _, name, ok := strings.Cut(o.target.Workload, "/"); ok {
		return name
	}
	return o.target.Pod
}

// Close drops an opening that is not started.
func (o *Opening) Close() error { return o.cluster.Close() }

// Explain turns an error of the packages that a session is made of into a
// fault.
func Explain(err error) error {
	if k, ok := errors.AsType[*kube.Error](err); ok {
		return &fault.Error{Code: codeOf(k), ID: k.ID, Op: k.Op, Object: k.Object, Reason: k.Reason, Hint: k.Hint, Err: err}
	}
	if u, ok := errors.AsType[*netns.UnsupportedError](err); ok {
		return &fault.Error{Code: fault.Hook, ID: "BN2103", Op: "make the session's network namespace", Reason: u.Reason, Hint: u.Hint, Err: err}
	}
	return err
}

// codeOf tells the target, the agent and the cluster apart by what was tried.
func codeOf(k *kube.Error) fault.Code {
	if _, ok := errors.AsType[*url.Error](k.Err); ok {
		return fault.Cluster
	}
	switch k.Op {
	case "find", "borrow":
		return fault.Target
	case "attach to", "place", "mirror":
		return fault.Agent
	}
	return fault.Cluster
}
