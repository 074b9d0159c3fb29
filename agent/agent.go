// Package agent is the pod's half of borrownet: it ends the tunnel of one
// client and turns each of its flows into an ordinary socket in the pod's
// network namespace, so that the pod's mesh, policies and identity treat it
// exactly like the application's own.
//
// The agent listens on one loopback port that only the API server's
// port-forward reaches; where that is refused, carriers come over its standard
// streams. A carrier must prove the client's static key before it gets a single
// byte but the greeting that is in the log anyway. Where it was started for that and the
// client asks for it, carriers come over UDP as well. Behind it run a link, one WireGuard device and one
// network stack per client session; a new session of the same client replaces
// the old one, whose flows are reset.
//
// Run owns every goroutine and returns after they have ended.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/stdio"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/direct"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
	"github.com/borrownet/borrownet/netstack/wg"
)

// Defaults of Config.
const (
	DefaultIdleTTL  = 15 * time.Minute
	DefaultHardTTL  = 8 * time.Hour
	DefaultMaxFlows = 1024
	// DefaultFarewell is short: the pod's deletion waits for the agent.
	DefaultFarewell = 300 * time.Millisecond
)

// Config configures an agent. Only ClientKey and Network are required.
type Config struct {
	ClientKey wg.PublicKey // the one peer that is served
	Network   Network      // the pod's network
	Listener  net.Listener // where carriers arrive; the agent closes it
	Hello     io.Writer    // gets the hello line; nil = discarded
	Stdio     *Stdio       // where carriers arrive too; nil = nowhere
	Version   string       // of the agent, for people
	Env       []string     // environment that the client may borrow
	Volumes   Volumes      // files that the client may borrow; nil = none

	// Direct opens a UDP socket on an address of the pod, for a client that can reach it there; nil = none may be opened.
	Direct func(addr netip.Addr) (net.PacketConn, error)

	IdleTTL  time.Duration // without a client the agent ends; 0 = DefaultIdleTTL
	HardTTL  time.Duration // the agent ends in any case; 0 = DefaultHardTTL
	Farewell time.Duration // bounds the wait for a client that is told of the end; 0 = DefaultFarewell
	MaxFlows int           // open TCP flows and UDP sockets, each; 0 = DefaultMaxFlows
	Memory   int64         // resident bytes near which new flows are refused; 0 = no bound

	Policy Policy       // destinations that are refused; PodIPs and Nameservers, if nil, are the Network's
	Logger *slog.Logger // nil = discarded
}

// Stdio is the standard streams of a container that is attached to, see package
// stdio. The agent closes them, which must end a Read and a Write in progress.
type Stdio struct {
	In  io.ReadCloser
	Out io.WriteCloser
}

// Agent serves one client. It is made by New and lives in Run.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	private  wg.PrivateKey
	verifier *link.Verifier
	counters *counters
	memory   memory
	expires  time.Time
	addrs    []netip.Addr
	stop     context.CancelCauseFunc // set by Run

	closing sync.WaitGroup // sessions that were replaced

	mu      sync.Mutex
	current *session // nil before the first carrier and after the end
	over    bool     // the last session was taken: there is none after it
}

// The reasons for which Run returns without an error.
var (
	errIdle    = errors.New("no client for the idle time")
	errExpired = errors.New("hard lifetime is over")
	errStopped = errors.New("stopped by the client")
)

// New checks cfg and makes the agent's key. It starts nothing.
func New(cfg Config) (*Agent, error) {
	if cfg.ClientKey.IsZero() {
		return nil, errors.New("client key is missing")
	}
	if cfg.Network == nil || cfg.Listener == nil {
		return nil, errors.New("network or listener is missing")
	}
	if cfg.IdleTTL == 0 {
		cfg.IdleTTL = DefaultIdleTTL
	}
	if cfg.HardTTL == 0 {
		cfg.HardTTL = DefaultHardTTL
	}
	if cfg.Farewell == 0 {
		cfg.Farewell = DefaultFarewell
	}
	if cfg.MaxFlows == 0 {
		cfg.MaxFlows = DefaultMaxFlows
	}
	if cfg.Hello == nil {
		cfg.Hello = io.Discard
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	addrs, err := cfg.Network.Addrs()
	if err != nil {
		return nil, fmt.Errorf("read the pod's addresses: %w", err)
	}
	if len(addrs) == 0 {
		return nil, errors.New("the pod has no address")
	}
	if cfg.Policy.PodIPs == nil {
		cfg.Policy.PodIPs = addrs
	}
	if cfg.Policy.Nameservers == nil {
		if text, err := cfg.Network.Resolv(); err == nil {
			cfg.Policy.Nameservers = nameservers(text)
		}
	}
	private := wg.NewPrivateKey()
	verifier, err := link.NewVerifier(private, cfg.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("client key: %w", err)
	}
	return &Agent{
		cfg:      cfg,
		log:      cfg.Logger,
		private:  private,
		verifier: verifier,
		counters: newCounters(),
		memory:   memory{budget: cfg.Memory},
		expires:  time.Now().Add(cfg.HardTTL),
		addrs:    addrs,
	}, nil
}

// Run says hello and serves until ctx is cancelled, a lifetime is over or the
// client stops the agent; then it returns nil.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	a.stop = stop
	defer stop(nil)
	hello, err := a.hello()
	if err != nil {
		return err
	}
	a.log.Info("agent starts", "version", a.cfg.Version, "peer", a.cfg.ClientKey.String(), "pod", a.addrs,
		"metadata", a.cfg.Policy.Metadata, "memory", a.cfg.Memory, "oom_score_adj", oomScore(), "idle_ttl", a.cfg.IdleTTL.String(), "expires", a.expires.UTC().Format(time.RFC3339))

	var wg sync.WaitGroup
	left := make(chan struct{}) // closed when the last session has ended
	wg.Go(func() { a.expire(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		a.cfg.Listener.Close()
	})
	if s := a.cfg.Stdio; s != nil {
		wg.Go(func() { a.acceptStdio(ctx, left, stdio.Listen(s.In, s.Out, hello)) })
	}
	err = a.accept(ctx)
	stop(err)
	a.mu.Lock()
	last := a.current
	a.current, a.over = nil, true
	a.mu.Unlock()
	cause := context.Cause(ctx)
	if last != nil {
		last.end("the agent ends: " + cause.Error())
		if !errors.Is(cause, errStopped) { // else the client knows, and has ended the session
			last.leave()
		}
		last.close()
	}
	close(left)
	a.closing.Wait()
	wg.Wait()

	a.log.Info("agent ends", "reason", cause)
	switch {
	case errors.Is(cause, errIdle), errors.Is(cause, errExpired), errors.Is(cause, errStopped), errors.Is(cause, context.Canceled):
		return nil
	default:
		return err
	}
}

// hello says hello, and returns what it said.
func (a *Agent) hello() ([]byte, error) {
	addr, err := netip.ParseAddrPort(a.cfg.Listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("listener's address %s: %w", a.cfg.Listener.Addr(), err)
	}
	line, err := json.Marshal(wire.Hello{
		Borrownet: "agent",
		Protocol:  wire.Protocol,
		Version:   a.cfg.Version,
		PublicKey: a.private.Public().String(),
		Port:      addr.Port(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	if _, err := fmt.Fprintf(a.cfg.Hello, "%s\n", line); err != nil {
		return nil, fmt.Errorf("write hello: %w", err)
	}
	return line, nil
}

// acceptPause is the time between two tries to accept when there is no room.
const acceptPause = 50 * time.Millisecond

// accept takes carriers until the listener is closed.
func (a *Agent) accept(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := a.cfg.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept carrier on %s: %w", a.cfg.Listener.Addr(), err)
			}
			// Out of descriptors or memory: flows that end give some back, and the
			// client comes again.
			a.counters.drop("carrier not accepted")
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		wg.Go(func() { a.admit(ctx, conn) })
	}
}

// acceptStdio takes carriers from the container's standard streams, which it closes
// once done is closed: all sessions are on them.
func (a *Agent) acceptStdio(ctx context.Context, done <-chan struct{}, l *stdio.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-done
		if err := l.Close(); err != nil {
			a.log.Debug("close standard streams", "err", err)
		}
	})
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { a.admit(ctx, conn) })
	}
}

// admit gives a carrier that proves the client's key to its session.
func (a *Agent) admit(ctx context.Context, conn io.ReadWriteCloser) {
	id, role, err := a.verifier.Verify(ctx, conn)
	if err != nil {
		a.counters.drop("carrier without proof")
		a.log.Warn("carrier refused", "err", err)
		conn.Close()
		return
	}
	if c, ok := conn.(*direct.Carrier); ok {
		c.Prefer(laneOf(role) == fairqueue.Express)
	}
	if err := a.attach(ctx, id, laneOf(role), conn); err != nil {
		a.log.Warn("carrier lost", "err", err)
		conn.Close()
	}
}

// laneOf returns the lane that carriers of a role are for.
func laneOf(role link.Role) fairqueue.Lane {
	if role == link.RoleBulk {
		return fairqueue.Bulk
	}
	return fairqueue.Express
}

// attach hands conn to the session id, which replaces any other session if the
// carrier is its first: that for the express lane.
func (a *Agent) attach(ctx context.Context, id [16]byte, lane fairqueue.Lane, conn io.ReadWriteCloser) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if a.over { // a direct carrier, which comes as long as its session is there
		return net.ErrClosed
	}
	if a.current != nil && a.current.id == id && !a.current.ended() {
		a.current.tunnel.Attach(lane, conn)
		return nil
	}
	if lane != fairqueue.Express {
		return fmt.Errorf("%v carrier of a session that is not there", lane)
	}
	if a.current != nil {
		// The old session's stack may be waiting for nothing else than this
		// lock's holder, so it is closed without the lock by its own goroutine.
		old := a.current
		old.end("replaced by a new session of the client")
		a.closing.Go(old.close)
		a.current = nil
	}
	s, err := a.newSession(id)
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	a.current = s
	s.tunnel.Attach(lane, conn)
	s.record.log.Info(wire.LogSessionStarts)
	return nil
}

// expire ends the agent when its client has been away for IdleTTL or when
// HardTTL is over.
func (a *Agent) expire(ctx context.Context) {
	hard := time.NewTimer(time.Until(a.expires))
	defer hard.Stop()
	idle := time.NewTimer(a.cfg.IdleTTL)
	defer idle.Stop()
	for lastSeen := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-hard.C:
			a.stop(errExpired)
			return
		case <-idle.C:
			if t := a.lastReceive(); t.After(lastSeen) {
				lastSeen = t
			}
			left := a.cfg.IdleTTL - time.Since(lastSeen)
			if left <= 0 {
				a.stop(errIdle)
				return
			}
			idle.Reset(left)
		}
	}
}

// lastReceive reports when the current session last heard of its client.
func (a *Agent) lastReceive() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current == nil {
		return time.Time{}
	}
	return a.current.tunnel.Stats(fairqueue.Express).LastReceive
}
