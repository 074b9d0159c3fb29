package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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

// Session is a borrowed target: what it has on the laptop, and what it has of the pod
// that it is at. If that pod is lost it may go on at another one, as another Session on
// the same ground; the exported methods are those of the session that there is now.
type Session struct {
	*ground
	target *kube.Target
	log    *slog.Logger
	born   time.Time
	ctx    context.Context // alive until the session leaves the pod
	cancel context.CancelFunc
	wg     sync.WaitGroup // what ends with ctx

	// Set by the steps of the start, in this order; immutable from then on.
	key     *Key
	agent   *kube.Agent
	peer    wg.PublicKey
	id      link.Identity // of the tunnel's carriers
	tunnel  *wg.Tunnel
	linkEnd chan error // the tunnel's end, once
	control *control
	info    wire.Info
	dns     *dnsproxy.Proxy
	mirror  *mirroring // nil if nothing is to be mirrored

	mirrorRefused *fault.Error // why the agent may not capture; nil if it may, or need not

	carriers [fairqueue.Lanes]lastCarrier
	shortcut shortcut
	mesh     atomic.Pointer[Mesh] // as it was looked at last; nil = nothing is known

	up      bool // guarded by ground.mu: the express link has a carrier
	counted bool // guarded by ground.mu: the tunnel is part of past

	undoMu sync.Mutex
	steps  []func() error // guarded by undoMu: how to undo those taken at this pod, in their order
}

// at returns a session of g at target that has nothing of it yet.
func (g *ground) at(target *kube.Target, log *slog.Logger) *Session {
	s := &Session{ground: g, target: target, log: log.With("session", g.name), born: time.Now(), linkEnd: make(chan error, 1)}
	s.ctx, s.cancel = context.WithCancel(g.life)
	return s
}

// Start borrows the target. If ctx ends or a step fails, what was done is
// undone. The opening must not be used afterwards.
func (o *Opening) Start(ctx context.Context, name string, obs Observer) (_ *Session, err error) {
	g := newGround(o, name, obs)
	s := g.at(o.target, o.log)
	g.now.Store(s)
	g.onEndLast(o.cluster.Close)
	defer func() {
		if err != nil {
			err = s.abort(ctx, err)
		}
	}()
	steps := []func(context.Context) error{
		s.attach, s.raiseStack, s.raiseLink, s.meetAgent, s.resolveNames, s.serveLocals,
		s.borrowFiles,
		func(ctx context.Context) error { return s.openHook(ctx, o.opener) },
		s.openMirror,
		func(ctx context.Context) error { return s.openToContainers(ctx, o.opener) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	s.watching.Go(s.watch)
	s.arrive()
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

// onClose remembers how to undo a step that was taken at this pod.
func (s *Session) onClose(undo func() error) {
	s.undoMu.Lock()
	defer s.undoMu.Unlock()
	s.steps = append(s.steps, undo)
}

// retire ends the DNS proxy. It answers for the names of the laptop for as long as
// nothing has taken the place of s.
func (s *Session) retire() error {
	if s.dns == nil {
		return nil
	}
	return s.dns.Close()
}

// leave gives the pod back and joins what the session has of it. What there is on the
// laptop stays.
func (s *Session) leave() error {
	s.cancel()
	s.undoMu.Lock()
	steps := s.steps
	s.steps = nil
	s.undoMu.Unlock()
	err := s.undo(&steps)
	s.wg.Wait()
	return err
}

// attach takes the target's key and makes an agent run that knows it.
func (s *Session) attach(ctx context.Context) error {
	keys := s.opener.Keys
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	key, err := keys.Take(keyOwner(s.target), s.req.HardTTL)
	if err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "keep a key for", Object: "pod " + s.target.Pod, Reason: err.Error(), Err: err, Hint: keys.hint(err)}
	}
	s.key = key
	s.onClose(func() error { key.Release(); return nil })
	s.agent, err = s.place(ctx, s.req.Spec(s.target, key.Private.Public().String()))
	switch {
	case errors.Is(err, kube.ErrPlaced):
		s.leaveBehind("the agent in pod " + s.target.Namespace + "/" + s.target.Pod)
		return err
	case err != nil:
		if key.Fresh() {
			err = errors.Join(err, key.Forget()) // no agent got it
		}
		return err
	}
	s.leaveBehind(s.agentText())
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

// place makes an agent run that is like spec, or one that may not capture where
// that is what the cluster refuses.
func (s *Session) place(ctx context.Context, spec kube.AgentSpec) (*kube.Agent, error) {
	agent, err := s.cluster.Attach(ctx, s.target, spec, s.step(s.log))
	if !errors.Is(err, kube.ErrNetRaw) {
		return agent, err
	}
	s.mirrorRefused = fault.From(Explain(err))
	s.step(s.log)("mirroring is refused, going on without")
	spec.NetRaw = false
	return s.cluster.Attach(ctx, s.target, spec, s.step(s.log))
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
	local := slices.Concat(s.req.Local, s.redirects.nets())
	s.stack, s.addrs = stack, s.target.PodIPs
	s.fabric = newFabric(router.New(router.Config{
		Session: s.target.PodIPs, Client: wire.ClientAddr, Agent: wire.AgentAddr, Remote: wire.LoopbackAddr, Resolver: guestResolver,
		Nameservers: s.names.addrs(), Local: local, Terminate: s.req.ReadOnly || len(s.req.Deny) > 0, Logger: s.log,
	}), stack, s.log)
	s.fabric.pumpStack()
	s.onEndLast(func() error {
		s.fabric.queue.close() // unblocks the pumps
		err := stack.Close()
		s.fabric.wg.Wait()
		s.locals.udp.wg.Wait()
		return err
	})
	s.locals = &locals{
		ctx: s.life, stack: stack, sendUDP: s.fabric.sendUDP, dns: presentNames{s.ground}, nameservers: s.names, local: local, remote: s.req.RemoteLocalhost,
		lost: &s.fabric.lost, redirects: s.redirects, udp: newUDPTable(stack, s.hasUDPPort, s.redirects),
	}
	s.fabric.answer = s.locals.answer
	return nil
}

// raiseLink opens the link to the agent and WireGuard over it.
func (s *Session) raiseLink(context.Context) error {
	s.step(s.log)("opening the tunnel")
	s.fabric.queue.open()
	s.id = link.Identity{Private: s.key.Private, Peer: s.peer}
	rand.Read(s.id.Session[:]) // never fails
	tunnel, err := wg.NewTunnel(wg.TunnelConfig{
		Private: s.key.Private, Peer: s.peer, MTU: wire.MTU, Packets: tunnelPort{s.fabric},
		Dial: s.dial, OnState: s.linkState, Grace: s.opener.Grace, Logger: s.log,
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
	if s.req.Direct {
		s.wg.Go(s.seekShortcut)
	}
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

// resolveNames makes the DNS proxy that asks the pod's nameservers.
func (s *Session) resolveNames(context.Context) error {
	pod, err := dnsproxy.ParseResolvConf(strings.NewReader(s.info.Resolv))
	if err != nil {
		return fmt.Errorf("pod's resolver: %w", err)
	}
	var dialer net.Dialer
	s.dns = dnsproxy.New(dnsproxy.Config{
		Pod: pod, Dial: s.dialPod, Datagrams: s.podDatagrams, Local: s.req.LocalNames, Logger: s.log,
		Hosts: s.redirects.hosts(s.req.Hosts, s.target.Namespace, pod),
		DialLaptop: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr.String())
		},
	})
	s.dns.SetLaptop(s.names.conf())
	return nil
}

// serveLocals answers what programs send to the laptop itself and to its
// resolvers.
func (s *Session) serveLocals(context.Context) error {
	s.tasks.Go(func() {
		s.names.follow(s.life, func() {
			s.fabric.router.SetNameservers(s.names.addrs())
			s.now.Load().dns.SetLaptop(s.names.conf())
		})
	})
	var err error
	if s.locals.guard, err = s.newGuarded(); err != nil {
		return err
	}
	s.stack.ForwardTCP(maxDialing, s.locals.forwardTCP)
	s.stack.ForwardUDP(s.locals.forwardUDP)
	return nil
}

// presentNames answers DNS queries at the pod where the session is.
type presentNames struct{ *ground }

func (p presentNames) Serve(query []byte, reply func([]byte)) bool {
	return p.now.Load().dns.Serve(query, reply)
}

func (p presentNames) ServeTCP(ctx context.Context, c net.Conn) { p.now.Load().dns.ServeTCP(ctx, c) }

// dialPod connects to addr from the pod, for the DNS proxy.
func (s *Session) dialPod(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	src, err := s.podSource(network, addr)
	if err != nil {
		return nil, err
	}
	if network == "tcp" {
		return s.stack.DialTCP(ctx, netip.AddrPortFrom(src, 0), addr)
	}
	return s.stack.DialUDP(netip.AddrPortFrom(src, 0), addr)
}

// podSource returns the address that the stack has towards addr in the pod.
func (s *Session) podSource(network string, addr netip.AddrPort) (netip.Addr, error) {
	if s.fabric.lost.Load() {
		return netip.Addr{}, &net.OpError{Op: "dial", Net: network, Addr: net.UDPAddrFromAddrPort(addr), Err: syscall.ENETUNREACH}
	}
	if !addr.Addr().Is6() {
		return wire.ClientAddr, nil
	}
	// The stack has no IPv6 address of its own.
	i := slices.IndexFunc(s.target.PodIPs, netip.Addr.Is6)
	if i < 0 {
		return netip.Addr{}, &net.OpError{Op: "dial", Net: network, Addr: net.UDPAddrFromAddrPort(addr), Err: errors.New("the pod has no IPv6 address")}
	}
	return s.target.PodIPs[i], nil
}

// podDatagrams is dialPod for datagrams that pass the stack by.
func (s *Session) podDatagrams(addr netip.AddrPort, receive func(payload []byte, err error)) (io.WriteCloser, error) {
	src, err := s.podSource("udp", addr)
	if err != nil {
		return nil, err
	}
	r, err := s.stack.ReceiveUDP(src, addr, receive)
	if err != nil {
		return nil, err
	}
	return podDatagrams{Receiver: r, to: addr, fabric: s.fabric}, nil
}

// podDatagrams are datagrams to one address in the pod.
type podDatagrams struct {
	*netstack.Receiver
	to     netip.AddrPort
	fabric *fabric
}

func (d podDatagrams) Write(payload []byte) (int, error) {
	d.fabric.sendUDP(d.Local, d.to, payload)
	return len(payload), nil
}

func (d podDatagrams) Close() error {
	d.Receiver.Close()
	return nil
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
	if s.hook != hook.None {
		if err := s.serveBroker(o); err != nil {
			return err
		}
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
	s.step(s.log)("making the session's network namespace")
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
	s.onEnd(helper.Close)
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

// Place returns what a program needs to run in the session.
func (s *Session) Place() Place {
	s = s.now.Load()
	p := Place{
		Remote: s.req.RemoteLocalhost, Session: s.name, Hook: s.hook, Socket: s.socket, Broker: s.broker, Ports: s.board, Addrs: onePerFamily(s.target.PodIPs),
		Pod: s.target.Pod, Namespace: s.target.Namespace, Hostname: s.target.Hostname, Files: s.files.binds(), Google: s.target.Cloud.Google(),
	}
	p.Scratch = s.files.scratch()
	p.Env = s.environment()
	return p
}

// environment is the container's: what its spec declares, as the agent told.
func (s *Session) environment() []string {
	var out []string
	for _, kv := range s.info.Env {
		name, _, _ := strings.Cut(kv, "=")
		if s.target.Env.Declares(name) { // the agent is not trusted with more
			out = append(out, kv)
		}
	}
	return out
}
