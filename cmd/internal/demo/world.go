package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/netstack"
)

// Config configures a World.
type Config struct {
	Version string       // of the agents
	Logger  *slog.Logger // nil discards
}

// A World is a cluster in this process.
type World struct {
	cfg      Config
	log      *slog.Logger
	ctx      context.Context // alive until Close
	cancel   context.CancelFunc
	ether    *ether
	services services
	wg       sync.WaitGroup // agents
	wall     atomic.Bool    // nothing passes over UDP

	mu       sync.Mutex
	pods     []*pod
	rolled   int                 // pods that were replaced
	agents   []*resident         // oldest first; one that has ended stays listed
	nextPort uint16              // of an agent
	carriers map[net.Conn]string // open ones, with their agent's container
	away     bool                // carriers are refused
	closed   bool
}

// Start makes a world. Close must be called.
func Start(cfg Config) (*World, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w := &World{
		cfg: cfg, log: cfg.Logger, ether: newEther(cfg.Logger), services: services{log: cfg.Logger},
		nextPort: firstPort, carriers: map[net.Conn]string{},
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	if err := w.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("make the demo's world: %w", err), w.Close())
	}
	w.ether.start()
	return w, nil
}

func (w *World) build() error {
	// The Services' addresses are those of the stacks behind them: there is
	// one server each, so there is nothing to balance.
	if _, err := w.addPod("api", []netip.Addr{apiAddr, apiAddr6}); err != nil {
		return err
	}
	orders, err := w.addPod("orders", []netip.Addr{ordersPod}, ordersAddr)
	if err != nil {
		return err
	}
	ledger, err := w.addPod("ledger", []netip.Addr{ledgerPod, ledgerPod6}, ledgerAddr, ledgerAddr6)
	if err != nil {
		return err
	}
	dns, err := w.ether.host("dns", dnsAddr)
	if err != nil {
		return err
	}
	return errors.Join(
		w.ether.route(),
		w.services.orders(orders),
		w.services.ledger(ledger, ledgerAddr, ledgerAddr6, ledgerPod, ledgerPod6),
		w.services.dns(w.ctx, dns),
	)
}

// addPod makes the pod of the Deployment app, whose stack has more addresses.
func (w *World) addPod(app string, addrs []netip.Addr, more ...netip.Addr) (*netstack.Stack, error) {
	name := app + "-7d9f6c5b4-" + podSuffix
	stack, err := w.ether.host(name, append(addrs[:len(addrs):len(addrs)], more...)...)
	if err != nil {
		return nil, err
	}
	w.pods = append(w.pods, &pod{
		name: name, uid: rand.Text(), workload: "deploy/" + app, container: "app", addrs: addrs, services: more, stack: stack, ether: w.ether,
		env: environment(app, name),
	})
	return stack, nil
}

// environment is that of the container of a pod.
func environment(app, pod string) []string {
	return []string{
		"APP_NAME=" + app, "POD_NAME=" + pod,
		"KUBERNETES_SERVICE_HOST=198.51.100.1", "KUBERNETES_SERVICE_PORT=443",
		"ORDERS_SERVICE_HOST=" + ordersAddr.String(), "ORDERS_SERVICE_PORT=80",
		"LEDGER_SERVICE_HOST=" + ledgerAddr.String(), fmt.Sprintf("LEDGER_SERVICE_PORT=%d", EchoPort),
	}
}

// podSuffix ends the pods' names, as a ReplicaSet would have made it.
const podSuffix = "x2v8k"

// Close ends agents, services and stacks, and joins everything that the world
// has started; later calls return net.ErrClosed.
func (w *World) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return net.ErrClosed
	}
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.cutCarriers()
	w.wg.Wait() // agents
	err := w.ether.close()
	w.services.wg.Wait()
	return err
}

// Resolve finds the pod that ref means. Its errors are what a cluster says.
func (w *World) Resolve(namespace, ref, container string) (*kube.Target, error) {
	if namespace == "" {
		namespace = Namespace
	}
	p, err := w.find(namespace, ref)
	if err != nil {
		return nil, err
	}
	if container == "" {
		container = p.container
	}
	if container != p.container {
		return nil, &kube.Error{ID: "BN1105", Op: "find", Object: "container " + container + " in pod " + Namespace + "/" + p.name,
			Reason: "the pod has no such container", Hint: "use -c with one of: " + p.container}
	}
	return w.target(p, container), nil
}

// kinds are the types that a reference may name, as kubectl spells them.
var kinds = map[string]string{
	"pod": "pod", "pods": "pod", "po": "pod",
	"deploy": "deploy", "deployment": "deploy", "deployments": "deploy", "deployment.apps": "deploy", "deployments.apps": "deploy",
	"svc": "svc", "service": "svc", "services": "svc",
}

func noNamespace(object, namespace string) error {
	return &kube.Error{ID: "BN1101", Op: "find", Object: object, Reason: "there is no namespace " + namespace, Hint: "name the right one with -n: the demo has " + Namespace}
}

func (w *World) find(namespace, ref string) (*pod, error) {
	if namespace != Namespace {
		return nil, noNamespace(ref, namespace)
	}
	kind, name, typed := strings.Cut(ref, "/")
	if !typed {
		kind, name = "", ref
	} else if short, ok := kinds[kind]; ok {
		kind = short
	} else {
		return nil, &kube.Error{Op: "find", Object: ref, Reason: fmt.Sprintf("%q is no type that has pods here", kind), Hint: "known types: pod, deploy, svc"}
	}
	for _, p := range w.list() {
		app := strings.TrimPrefix(p.workload, "deploy/")
		isPod, isApp := name == p.name && (kind == "" || kind == "pod"), name == app && kind != "pod"
		if isPod || isApp && (kind != "svc" || app != "api") {
			return p, nil
		}
	}
	return nil, &kube.Error{ID: "BN1102", Op: "find", Object: ref + " in namespace " + Namespace, Reason: "there is no such pod, workload or service",
		Hint: "the demo has deploy/api, deploy/orders and deploy/ledger"}
}

// Targets are all that can be borrowed.
func (w *World) Targets() []*kube.Target {
	var out []*kube.Target
	for _, p := range w.list() {
		out = append(out, w.target(p, p.container))
	}
	return out
}

func (w *World) target(p *pod, container string) *kube.Target {
	t := &kube.Target{
		Context: Context, Namespace: Namespace, Pod: p.name, UID: p.uid, Container: container, Node: Node, Workload: p.workload, PodIPs: p.addrs,
		Ready: true, Hostname: p.name,
	}
	for _, kv := range p.env {
		name, _, _ := strings.Cut(kv, "=")
		t.Env.Names = append(t.Env.Names, name)
	}
	return t
}

// pod returns the pod with a uid, or nil.
func (w *World) pod(uid string) *pod {
	for _, p := range w.list() {
		if p.uid == uid {
			return p
		}
	}
	return nil
}
