package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/wg"
)

const (
	// firstPort is the first agent's port in its pod.
	firstPort = 41001
	// maxAgents bounds the agents that run, maxListed those that are
	// remembered. A cluster remembers all for as long as the pod lives.
	maxAgents = 16
	maxListed = 64
	// startTimeout bounds the start of an agent.
	startTimeout = 10 * time.Second
)

// errAway is what a world says that was told to be out of reach.
var errAway = errors.New("the demo's world is out of reach for now")

// resident is an agent in a pod.
type resident struct {
	container string
	pod       *pod
	spec      kube.AgentSpec
	hello     wire.Hello
	door      *door
	kill      context.CancelFunc
	started   time.Time

	// Guarded by World.mu.
	ended  bool
	reason string
	code   int32
}

// Attach makes an agent that fits spec run in the target's pod, as
// kube.Client does.
func (w *World) Attach(ctx context.Context, t *kube.Target, spec kube.AgentSpec, progress func(string)) (*kube.Agent, error) {
	object := "pod " + t.Namespace + "/" + t.Pod
	fail := func(reason, hint string) (*kube.Agent, error) {
		return nil, &kube.Error{Op: "attach to", Object: object, Reason: reason, Hint: hint}
	}
	p := w.pod(t.UID)
	if p == nil {
		return fail("the pod no longer exists", "borrownet up --pod "+t.Workload+" --context "+Context+" -n "+t.Namespace)
	}
	key, err := wg.ParsePublicKey(spec.ClientKey)
	if err != nil {
		return fail("the client's key is no WireGuard public key", "")
	}
	r, reused, err := w.settle(p, spec)
	if err != nil {
		return fail(err.Error(), "borrownet down --stop-agent")
	}
	if reused {
		progress("taking the agent that is there: " + r.container)
		return &kube.Agent{Container: r.container, Hello: r.hello, Reused: true}, nil
	}
	progress("adding agent " + r.container)
	if err := w.run(ctx, r, key); err != nil {
		return fail(fmt.Sprintf("agent %s: %v", r.container, err), "")
	}
	return &kube.Agent{Container: r.container, Hello: r.hello}, nil
}

// settle returns the agent in p that does what spec asks for, or a new one
// that does not run yet.
func (w *World) settle(p *pod, spec kube.AgentSpec) (r *resident, reused bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, false, net.ErrClosed
	}
	running := 0
	for _, r := range slices.Backward(w.agents) {
		if r.ended {
			continue
		}
		running++
		if r.pod == p && r.hello.Port != 0 && r.spec.ClientKey == spec.ClientKey && r.spec.IdleTTL == spec.IdleTTL && r.spec.HardTTL == spec.HardTTL && r.spec.Direct == spec.Direct {
			return r, true, nil
		}
	}
	if running >= maxAgents {
		return nil, false, fmt.Errorf("%d agents run already", running)
	}
	w.agents = append(w.agents, &resident{
		container: "borrownet-agent-" + strings.ToLower(rand.Text()[:5]), pod: p, spec: spec, started: time.Now(), kill: func() {},
	})
	r = w.agents[len(w.agents)-1]
	r.door = newDoor(w.nextPort)
	w.nextPort++
	if i := slices.IndexFunc(w.agents, func(r *resident) bool { return r.ended }); len(w.agents) > maxListed && i >= 0 {
		w.agents = slices.Delete(w.agents, i, i+1)
	}
	return r, false, nil
}

// run starts r and waits for its greeting.
func (w *World) run(ctx context.Context, r *resident, key wg.PublicKey) error {
	hello := &greeting{line: make(chan []byte, 1)}
	cfg := agent.Config{
		ClientKey: key, Network: r.pod, Listener: r.door, Hello: hello, Version: w.cfg.Version, Env: r.pod.env,
		IdleTTL: r.spec.IdleTTL, HardTTL: r.spec.HardTTL, Logger: w.log.With("container", r.container),
	}
	if r.spec.Direct {
		cfg.Direct = w.listenDirect
	}
	a, err := agent.New(cfg)
	if err != nil {
		w.bury(r, "Error", 1)
		return err
	}
	if err := w.begin(r, a); err != nil {
		w.bury(r, "Error", 1)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case line := <-hello.line:
		said, err := wire.ParseHello(line)
		if err != nil {
			r.kill()
			return err
		}
		w.mu.Lock()
		r.hello = said
		w.mu.Unlock()
		return nil
	case <-ctx.Done():
		r.kill()
		return ctx.Err()
	}
}

// begin lets r's agent live, unless the world has ended, which waits for those that live.
func (w *World) begin(r *resident, a *agent.Agent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	life, kill := context.WithCancel(w.ctx)
	r.kill = kill
	w.wg.Go(func() {
		defer kill()
		w.live(life, r, a)
	})
	return nil
}

// live runs r's agent until life ends, or it does.
func (w *World) live(life context.Context, r *resident, a *agent.Agent) {
	err := a.Run(life)
	switch {
	case err != nil:
		w.log.Warn("agent ends", "container", r.container, "err", err)
		w.bury(r, "Error", 1)
	case life.Err() != nil:
		w.bury(r, "Error: killed", 137)
	default:
		w.bury(r, "Completed", 0)
	}
}

// bury notes that r has ended.
func (w *World) bury(r *resident, reason string, code int32) {
	r.door.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	r.ended, r.reason, r.code = true, reason, code
}

// Agents lists the agents on the target's pod, oldest first.
func (w *World) Agents(t *kube.Target) []kube.AgentState {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []kube.AgentState
	for _, r := range w.agents {
		if r.pod.uid != t.UID {
			continue
		}
		s := kube.AgentState{
			Namespace: Namespace, Pod: r.pod.name, UID: r.pod.uid, Container: r.container, ClientKey: r.spec.ClientKey,
			State: kube.StateRunning, Started: r.started,
		}
		if r.ended {
			s.State, s.Reason, s.ExitCode = kube.StateTerminated, r.reason, r.code
		}
		out = append(out, s)
	}
	return out
}

// Dial gives the agent on a port of the target's pod conn as its carrier.
func (w *World) Dial(t *kube.Target, port uint16, conn net.Conn) error {
	r, err := w.answering(t, port)
	if err != nil {
		return err
	}
	c := &carrier{Conn: conn, world: w}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return net.ErrClosed
	}
	w.carriers[c] = r.container
	w.mu.Unlock()
	if err := r.door.admit(c); err != nil {
		c.Close()
		return refused(t, port)
	}
	return nil
}

// answering returns the agent that listens on port.
func (w *World) answering(t *kube.Target, port uint16) (*resident, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return nil, errAway
	}
	for _, r := range w.agents {
		if r.pod.uid == t.UID && r.hello.Port == port && !r.ended {
			return r, nil
		}
	}
	return nil, refused(t, port)
}

func refused(t *kube.Target, port uint16) error {
	return &kube.Error{Op: "reach the agent in", Object: "pod " + t.Namespace + "/" + t.Pod, Err: syscall.ECONNREFUSED,
		Reason: fmt.Sprintf("nothing listens on port %d any more: the agent has ended", port)}
}

// Cut breaks every carrier, as a lost connection to the API server does. Until
// Mend new ones are refused.
func (w *World) Cut() {
	w.mu.Lock()
	w.away = true
	w.mu.Unlock()
	w.cutCarriers()
}

// Mend lets carriers in again.
func (w *World) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = false
}

func (w *World) cutCarriers() {
	w.mu.Lock()
	var open []net.Conn
	for c := range w.carriers {
		open = append(open, c)
	}
	w.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// Kill ends every agent at once, as a kubelet that is out of memory does.
func (w *World) Kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.agents {
		r.kill()
	}
}

// A carrier is a conn that the world can cut.
type carrier struct {
	net.Conn
	world *World
}

// Close implements net.Conn.
func (c *carrier) Close() error {
	c.world.mu.Lock()
	delete(c.world.carriers, c)
	c.world.mu.Unlock()
	return c.Conn.Close()
}

// A door is the port of an agent in its pod: a net.Listener to which carriers
// are handed.
type door struct {
	port   uint16
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newDoor(port uint16) *door {
	return &door{port: port, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// admit hands c to the agent.
func (d *door) admit(c net.Conn) error {
	select {
	case d.conns <- c:
		return nil
	case <-d.closed:
		return net.ErrClosed
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// Addr implements net.Listener: where the agent believes to listen.
func (d *door) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), d.port))
}

// greeting takes the line that an agent prints first.
type greeting struct{ line chan []byte }

// Write implements io.Writer.
func (g *greeting) Write(b []byte) (int, error) {
	select {
	case g.line <- bytes.Clone(b):
	default: // only the first line matters
	}
	return len(b), nil
}
