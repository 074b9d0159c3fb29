package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
	"github.com/borrownet/borrownet/netstack/router"
	"github.com/borrownet/borrownet/netstack/wg"
)

const (
	// attachTimeout bounds image pull and start of the agent; kube fails
	// earlier where waiting is hopeless.
	attachTimeout = 5 * time.Minute
	// meetTimeout bounds the first answer of the agent through the tunnel.
	meetTimeout = 20 * time.Second
	// helperTimeout bounds the start of the namespace's helper.
	helperTimeout = 15 * time.Second
)

// Session is a borrowed target.
type Session struct {
	name    string
	req     Request
	target  *kube.Target
	cluster cluster
	obs     Observer
	log     *slog.Logger
	since   time.Time
	ctx     context.Context // alive until Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // the link and the watch over the parts

	// Set by the steps of the start, in this order; immutable from then on.
	key     *Key
	agent   *kube.Agent
	peer    wg.PublicKey
	stack   *netstack.Stack
	names   *nameservers
	fabric  *fabric
	tunnel  *wg.Tunnel
	linkEnd chan error // the tunnel's end, once
	control *control
	info    wire.Info
	dns     *dnsproxy.Proxy
	locals  *locals
	files   files
	hook    Rung          // never hook.Auto
	note    string        // why hook is not a better one
	helper  *netns.Helper // nil if hook is a relayed one
	socket  string        // of the helper, or of the relay
	broker  string        // socket for the preload library
	board   string        // socket by which programs publish ports; "" if hook is a relayed one
	ports   *ports        // nil if hook is a relayed one
	endHook func()        // ends the relay; nil unless hook is a relayed one
	guests  *guests       // nil if containers cannot join

	carriers [fairqueue.Lanes]lastCarrier
	mesh     atomic.Pointer[Mesh] // as it was looked at last; nil = nothing is known

	mu      sync.Mutex
	state   State
	problem *fault.Error   // guarded by mu: why it is not ready
	undo    []func() error // guarded by mu: of the steps taken, in their order
	closed  bool           // guarded by mu
}

// Start borrows the target. If ctx ends or a step fails, what was done is
// undone. The opening must not be used afterwards.
func (o *Opening) Start(ctx context.Context, name string, obs Observer) (_ *Session, err error) {
	s := &Session{
		name: name, req: o.req, target: o.target, cluster: o.cluster, obs: obs,
		log: o.log.With("session", name), since: time.Now(), state: Connecting, linkEnd: make(chan error, 1),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.onClose(o.cluster.Close)
	defer func() {
		if err != nil {
			err = s.abort(ctx, err)
		}
	}()
	steps := []func(context.Context) error{
		func(ctx context.Context) error { return s.attach(ctx, o.opener.Keys) },
		s.raiseStack, s.raiseLink, s.meetAgent, s.serveLocals,
		func(ctx context.Context) error { return s.borrowFiles(ctx, o.opener) },
		func(ctx context.Context) error { return s.openHook(ctx, o.opener) },
		func(ctx context.Context) error { return s.openToContainers(ctx, o.opener) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	s.wg.Go(s.watch)
	s.become(Ready, nil)
	return s, nil
}

// abort undoes a start and says why it failed.
func (s *Session) abort(ctx context.Context, err error) error {
	if closeErr := s.Close(); closeErr != nil {
		s.log.Warn("start undone with an error", "err", closeErr)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return Explain(err)
}

// onClose remembers how to undo a step.
func (s *Session) onClose(undo func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, undo)
}

// attach takes the target's key and makes an agent run that knows it.
func (s *Session) attach(ctx context.Context, keys *Keys) error {
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	key, err := keys.Take(keyOwner(s.target), s.req.HardTTL)
	if err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "keep a key for", Object: "pod " + s.target.Pod, Reason: err.Error(), Err: err,
			Hint: "is there room in " + keys.dir.String() + "? df -h " + keys.dir.String()}
	}
	s.key = key
	s.onClose(func() error { key.Release(); return nil })
	s.agent, err = s.cluster.Attach(ctx, s.target, s.req.spec(key.Private.Public().String()), s.obs.Step)
	if err != nil {
		if key.Fresh() && !errors.Is(err, kube.ErrPlaced) {
			err = errors.Join(err, key.Forget()) // no agent got it
		}
		return err
	}
	if !s.agent.Reused {
		if err := key.Keep(s.req.HardTTL); err != nil {
			s.log.Warn("the agent cannot be taken again later", "err", err)
		}
	}
	if s.peer, err = wg.ParsePublicKey(s.agent.Hello.PublicKey); err != nil {
		return &fault.Error{Code: fault.Agent, Op: "read the agent's greeting", Object: "container " + s.agent.Container, Reason: err.Error(), Err: err}
	}
	return nil
}

// raiseStack makes the client's own network stack and the packet paths.
func (s *Session) raiseStack(context.Context) error {
	stack, err := netstack.New(netstack.Config{
		Name: "client", MTU: wire.MTU, Addrs: []netip.Addr{wire.ClientAddr},
		Transparent: true, Loopback: true, IPv6: HasIPv6(s.target.PodIPs), Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("make network stack: %w", err)
	}
	s.names = newNameservers(resolvConf, s.log)
	s.stack = stack
	s.fabric = newFabric(router.New(router.Config{
		Session: s.target.PodIPs, Client: wire.ClientAddr, Agent: wire.AgentAddr, Remote: wire.LoopbackAddr, Resolver: guestResolver,
		Nameservers: s.names.addrs(), Local: s.req.Local, Logger: s.log,
	}), stack, s.log)
	s.fabric.pumpStack()
	s.onClose(func() error {
		s.fabric.queue.close() // unblocks the pumps
		err := stack.Close()
		s.fabric.wg.Wait()
		s.locals.udp.wg.Wait()
		if q := s.locals.queries; q != nil {
			q.wg.Wait()
		}
		return err
	})
	s.locals = &locals{
		ctx: s.ctx, stack: stack, nameservers: s.names, local: s.req.Local, remote: s.req.RemoteLocalhost, udp: newUDPTable(stack, s.hasUDPPort),
	}
	return nil
}

// raiseLink opens the link to the agent and WireGuard over it.
func (s *Session) raiseLink(context.Context) error {
	s.obs.Step("opening the tunnel")
	id := link.Identity{Private: s.key.Private, Peer: s.peer}
	rand.Read(id.Session[:]) // never fails
	tunnel, err := wg.NewTunnel(wg.TunnelConfig{
		Private: s.key.Private, Peer: s.peer, MTU: wire.MTU, Packets: tunnelPort{s.fabric},
		Dial: s.dialer(id), OnState: s.linkState, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("make tunnel: %w", err)
	}
	s.tunnel = tunnel
	s.wg.Go(func() { s.linkEnd <- tunnel.Run(s.ctx) })
	s.onClose(tunnel.Close)
	return nil
}

// meetAgent asks the agent about its pod through the tunnel: the answer proves
// the whole data path.
func (s *Session) meetAgent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	// A carrier that cannot be dialled ends the wait at once.
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	done := make(chan struct{})
	defer close(done)
	go func() { // ends with this function
		select {
		case err := <-s.linkEnd:
			s.linkEnd <- err
			fail(err)
		case <-done:
		}
	}()
	s.control = newControl(s.stack)
	s.onClose(s.control.close)
	info, err := s.control.info(failed)
	if err != nil {
		return s.noDataPath(err, context.Cause(failed))
	}
	if info.Protocol != wire.Protocol {
		return &fault.Error{
			Code: fault.Agent, ID: "BN1209", Op: "talk to the agent", Object: "container " + s.agent.Container,
			Reason: fmt.Sprintf("it speaks protocol %d, this client %d", info.Protocol, wire.Protocol),
			Hint:   "use the agent image of this release with --agent-image",
		}
	}
	s.info = info
	return nil
}

// noDataPath explains why the agent did not answer.
func (s *Session) noDataPath(err, cause error) error {
	dial := s.carriers[fairqueue.Express].lastError()
	for _, e := range []error{dial, cause} {
		if k, ok := errors.AsType[*kube.Error](e); ok {
			return k
		}
	}
	if dial != nil {
		err = dial
	}
	reason := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		reason = fmt.Sprintf("no answer within %v", meetTimeout)
	}
	return &fault.Error{
		Code: fault.NoDataPath, ID: "BN3301", Op: "reach the agent in", Object: "pod " + s.target.Namespace + "/" + s.target.Pod, Reason: reason, Err: err,
		Hint: fmt.Sprintf("kubectl -n %s logs %s -c %s", s.target.Namespace, s.target.Pod, s.agent.Container),
	}
}

// serveLocals answers what programs send to the laptop itself and to its
// resolvers.
func (s *Session) serveLocals(context.Context) error {
	pod, err := dnsproxy.ParseResolvConf(strings.NewReader(s.info.Resolv))
	if err != nil {
		return fmt.Errorf("pod's resolver: %w", err)
	}
	var dialer net.Dialer
	s.dns = dnsproxy.New(dnsproxy.Config{
		Pod: pod, Dial: s.dialPod, Local: s.req.LocalNames, Hosts: s.req.Hosts, Logger: s.log,
		DialLaptop: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr.String())
		},
	})
	s.onClose(s.dns.Close)
	s.dns.SetLaptop(s.names.conf())
	s.wg.Go(func() {
		s.names.follow(s.ctx, func() {
			s.fabric.router.SetNameservers(s.names.addrs())
			s.dns.SetLaptop(s.names.conf())
		})
	})
	s.locals.dns, s.locals.queries = s.dns, newQueries(s.ctx, s.dns)
	s.stack.ForwardTCP(maxDialing, s.locals.forwardTCP)
	s.stack.ForwardUDP(s.locals.forwardUDP)
	return nil
}

// dialPod connects to addr from the pod, for the DNS proxy.
func (s *Session) dialPod(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	src := netip.AddrPortFrom(wire.ClientAddr, 0)
	if addr.Addr().Is6() {
		// The stack has no IPv6 address of its own.
		i := slices.IndexFunc(s.target.PodIPs, netip.Addr.Is6)
		if i < 0 {
			return nil, &net.OpError{Op: "dial", Net: network, Addr: net.UDPAddrFromAddrPort(addr), Err: errors.New("the pod has no IPv6 address")}
		}
		src = netip.AddrPortFrom(s.target.PodIPs[i], 0)
	}
	if network == "tcp" {
		return s.stack.DialTCP(ctx, src, addr)
	}
	return s.stack.DialUDP(src, addr)
}

// openHook makes what programs enter the session by: the best that the machine
// allows, or what was asked for.
func (s *Session) openHook(ctx context.Context, o *Opener) error {
	want := s.req.Hook
	if want == "" {
		want = hook.Auto
	}
	machine := hook.Machine{Listener: supervisor.Probe(), Library: hook.Built()}
	if !want.Relayed() {
		err := s.openNamespace(ctx, o)
		if _, unsupported := errors.AsType[*netns.UnsupportedError](err); err != nil && (!unsupported || want != hook.Auto) {
			return err
		}
		machine.Namespace = err
	}
	var err error
	if s.hook, s.note, err = Choose(machine, want); err != nil {
		return err
	}
	if err := s.serveBroker(o); err != nil {
		return err
	}
	if !s.hook.Relayed() {
		return nil
	}
	s.log.Info("programs are relayed", "hook", s.hook, "err", machine.Namespace)
	return s.serveRelay(o)
}

// Choose takes the rung that is wanted, and says why a session is on it.
func Choose(m hook.Machine, want Rung) (Rung, string, error) {
	if want == hook.Auto {
		rung, note, err := m.Best()
		if err != nil {
			err = &fault.Error{Code: fault.Hook, ID: "BN2101", Op: "find a way for programs into the session", Reason: err.Error(), Hint: hook.Hint(err), Err: err}
		}
		return rung, note, err
	}
	if err := m.Allows(want); err != nil {
		return want, "", &fault.Error{Code: fault.Hook, ID: "BN2102", Op: "use hook", Object: string(want), Reason: hook.Reason(err), Hint: hook.Hint(err), Err: err}
	}
	if want == hook.Seccomp {
		return want, "", nil // nothing is better
	}
	return want, "asked for", nil
}

// socketName is the name of a socket that programs of one session use.
func socketName() string {
	var id [8]byte
	rand.Read(id[:]) // never fails
	return "session-" + hex.EncodeToString(id[:]) + ".sock"
}

// openNamespace starts the helper and joins its packet device.
func (s *Session) openNamespace(ctx context.Context, o *Opener) error {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	s.obs.Step("making the session's network namespace")
	s.socket = o.Dir.Path(socketName())
	helper, err := netns.Start(ctx, netns.Config{
		Exe: o.Helper, Socket: s.socket, Addrs: onePerFamily(s.target.PodIPs), MTU: wire.MTU, Logger: s.log,
	})
	if err != nil {
		return &fault.Error{Code: fault.Hook, ID: "BN2103", Op: "make the session's network namespace", Reason: err.Error(), Err: err}
	}
	s.mu.Lock()
	s.helper = helper
	s.mu.Unlock()
	s.onClose(helper.Close)
	s.fabric.open(helper)
	return s.openPorts(o)
}

// HasIPv6 reports whether one of the addresses is an IPv6 one.
func HasIPv6(addrs []netip.Addr) bool { return slices.ContainsFunc(addrs, netip.Addr.Is6) }

// onePerFamily returns the first IPv4 and the first IPv6 address.
func onePerFamily(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, is := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		if i := slices.IndexFunc(addrs, is); i >= 0 {
			out = append(out, addrs[i])
		}
	}
	return out
}

// hasUDPPort reports whether a program of the session has the UDP port.
func (s *Session) hasUDPPort(port uint16) bool {
	s.mu.Lock()
	h := s.helper
	s.mu.Unlock()
	return h != nil && hasUDPPort(h.Pid(), port)
}

// Close gives the target back: the agent stays parked. It joins everything that
// the session started; later calls return net.ErrClosed.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	undo := s.undo
	s.mu.Unlock()
	s.cancel()
	var errs []error
	for _, f := range slices.Backward(undo) {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.wg.Wait()
	return errors.Join(errs...)
}

// Place returns what a program needs to run in the session.
func (s *Session) Place() Place {
	p := Place{
		Remote: s.req.RemoteLocalhost, Session: s.name, Hook: s.hook, Socket: s.socket, Broker: s.broker, Ports: s.board, Addrs: onePerFamily(s.target.PodIPs),
		Pod: s.target.Pod, Namespace: s.target.Namespace, Hostname: s.target.Hostname, Files: s.files.binds(),
	}
	if s.files.dir != "" {
		p.Scratch = filepath.Join(s.files.dir, "view")
	}
	for _, kv := range s.info.Env {
		name, _, _ := strings.Cut(kv, "=")
		if s.target.Env.Declares(name) { // the agent is not trusted with more
			p.Env = append(p.Env, kv)
		}
	}
	return p
}
