package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/container"
	"github.com/borrownet/borrownet/cmd/internal/engine"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook/netns"
)

// guestTimeout bounds the start of the container and its way into the session.
const guestTimeout = 60 * time.Second

// guestResolver is whom programs in containers ask for names. It is in the range
// that no cluster can route, as the addresses of both netstacks are.
var guestResolver = netip.AddrFrom4([4]byte{192, 0, 0, 4})

// guestUnnamed is whom copies of requests come from in containers if the real client's
// address means something else there.
var guestUnnamed = netip.AddrFrom4([4]byte{192, 0, 0, 5})

// Docker asks for a network namespace that containers can join.
type Docker struct {
	// Own makes the session keep a container that owns the namespace. Otherwise
	// somebody else makes one.
	Own    bool   `json:"own,omitempty"`
	Engine string `json:"engine,omitempty"` // path of its socket, for Own
	Image  string `json:"image,omitempty"`  // of the container, as container.Load returns it
	Name   string `json:"name,omitempty"`   // of the container; "" = borrownet- and the session's name
}

// ContainerStatus is how containers are part of a session.
type ContainerStatus struct {
	Name     string         `json:"name,omitempty"`     // of the container that owns the namespace; "" = it is not ours
	Socket   string         `json:"socket"`             // by which a container joins
	Joined   bool           `json:"joined"`             // one has, and is there
	Device   string         `json:"device,omitempty"`   // tun or veth
	Networks []netip.Prefix `json:"networks,omitempty"` // that it is in besides
	Problem  *fault.Error   `json:"problem,omitempty"`  // why the last one was refused
}

// GuestSocket is the name, in the runtime directory, of the socket by which
// containers join the session of that name: the same for each of its lives.
func GuestSocket(session string) string { return guestFile(session) + ".sock" }

// GuestEnv is the name, in rundir's Memory, of a file for the environment of
// containers. It goes with the session.
func GuestEnv(session string) string { return guestFile(session) + ".env" }

func removeGuestEnv(dir *rundir.Dir, session string) error {
	memory, err := dir.Memory()
	if err != nil {
		return nil // so nobody could make one
	}
	if err := os.Remove(memory.Path(GuestEnv(session))); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func guestFile(session string) string {
	sum := sha256.Sum256([]byte(session))
	return "docker-" + hex.EncodeToString(sum[:8])
}

// GuestResolver is whom programs in containers ask for names.
func GuestResolver() netip.Addr { return guestResolver }

// guests lets containers into the session. One at a time owns the namespace that
// others join: the latest.
type guests struct {
	session *Session
	socket  string
	first   chan error // how the first attempt went; buffered 1
	wg      sync.WaitGroup

	mu      sync.Mutex
	current *netns.Guest // nil = none
	problem error        // why the last one was refused
	closed  bool
}

// openToContainers lets containers join, and makes the one whose namespace they
// join if that is asked for.
func (s *Session) openToContainers(ctx context.Context, o *Opener) error {
	if s.req.Docker == nil {
		return nil
	}
	s.step(s.log)("opening the session to containers")
	g := &guests{session: s, socket: o.Dir.Path(GuestSocket(s.name)), first: make(chan error, 1)}
	ln, err := netns.ListenGuests(g.socket)
	if err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "open the session to containers", Reason: err.Error(), Err: err,
			Hint: "is there room in " + o.Dir.String() + "? df -h " + o.Dir.String()}
	}
	g.wg.Go(func() { g.accept(ln) })
	s.onEnd(func() error {
		err := ln.Close()
		g.close()
		return errors.Join(err, removeGuestEnv(o.Dir, s.name))
	})
	s.guests = g
	if !s.req.Docker.Own {
		return nil
	}
	return g.start(ctx, o.Dir.String())
}

// start makes the session's own container and waits until it has joined.
func (g *guests) start(ctx context.Context, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	s, d := g.session, g.session.req.Docker
	e := engine.New(d.Engine)
	name := g.name()
	spec := container.Spec{
		Name: name, Image: d.Image, Session: s.name, Owner: owner, Socket: g.socket, Resolver: guestResolver,
		IPv6: HasIPv6(s.target.PodIPs), Publish: s.req.Publish.As,
	}
	s.step(s.log)("starting container " + name)
	id, err := container.Start(ctx, e, spec)
	if err != nil {
		return err
	}
	s.onEnd(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), guestTimeout)
		defer cancel()
		err := container.Remove(ctx, e, id)
		container.RemoveImages(ctx, e, "")
		return err
	})
	select {
	case err := <-g.first:
		if _, said := errors.AsType[*fault.Error](err); err == nil || said {
			return err
		}
		return container.NoGuest(e, name, err)
	case <-ctx.Done():
		return container.NoGuest(e, name, errors.New("it did not in time"))
	}
}

// accept lets containers in until ln is closed.
func (g *guests) accept(ln *net.UnixListener) {
	for {
		c, err := ln.AcceptUnix()
		if err != nil {
			return
		}
		err = g.welcome(c)
		if err != nil {
			g.session.log.Warn("a container could not join", "err", err)
		}
		g.mu.Lock()
		g.problem = err
		g.mu.Unlock()
		select {
		case g.first <- err:
		default:
		}
	}
}

func (g *guests) welcome(c *net.UnixConn) error {
	s := g.session
	guest, err := netns.Welcome(s.life, c, netns.GuestConfig{Addrs: onePerFamily(s.target.PodIPs), MTU: wire.MTU, Admit: s.admitNetworks})
	if err != nil {
		return err
	}
	g.replace(guest)
	s.fabric.openContainer(guest)
	s.log.Info("a container has joined", "device", guest.Kind(), "networks", guest.Nets())
	g.wg.Go(func() {
		<-guest.Done()
		g.forget(guest)
	})
	return nil
}

// replace makes guest the owner of the containers' namespace and sends the one
// before away.
func (g *guests) replace(guest *netns.Guest) {
	g.mu.Lock()
	before := g.current
	g.current = guest
	if g.closed {
		before, g.current = guest, nil
	}
	g.mu.Unlock()
	if before != nil {
		_ = before.Close()
	}
}

// close sends everybody away and joins what was started. The listener must be
// closed.
func (g *guests) close() {
	g.mu.Lock()
	g.closed = true
	last := g.current
	g.current = nil
	g.mu.Unlock()
	if last != nil {
		_ = last.Close()
	}
	g.wg.Wait()
}

// name is that of the session's own container, or "".
func (g *guests) name() string {
	d := g.session.req.Docker
	if d.Own && d.Name == "" {
		return "borrownet-" + g.session.name
	}
	return d.Name
}

// forget notes that guest has gone.
func (g *guests) forget(guest *netns.Guest) {
	g.mu.Lock()
	is := g.current == guest
	if is {
		g.current = nil
	}
	g.mu.Unlock()
	if is {
		g.session.log.Info("the container has gone")
		_ = guest.Close()
	}
}

// networks are those that the container is in besides, and whether there is one.
func (g *guests) networks() (nets []netip.Prefix, joined bool) {
	if g == nil {
		return nil, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil {
		return nil, false
	}
	return g.current.Nets(), true
}

// status is what `status` shows.
func (g *guests) status() *ContainerStatus {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	out := &ContainerStatus{Name: g.name(), Socket: g.socket}
	out.Problem = fault.From(g.problem)
	if g.current != nil {
		out.Joined, out.Device, out.Networks = true, g.current.Kind(), g.current.Nets()
	}
	return out
}

// admitNetworks refuses networks of a container that hide the cluster from it.
func (s *Session) admitNetworks(nets []netip.Prefix) error {
	for _, n := range nets {
		for _, c := range s.landmarks() {
			if n.Contains(c.addr) {
				return &fault.Error{Code: fault.Engine, ID: "BN2206", Op: "join the session by network", Object: n.String(), Reason: fmt.Sprintf("it hides the cluster's %v, %s", c.addr, c.what),
					Hint: "give the network another subnet: docker network create --subnet 10.213.0.0/24 NAME, ipam in the compose file, or default-address-pools in /etc/docker/daemon.json"}
			}
		}
	}
	return nil
}

// landmark is an address of the cluster.
type landmark struct {
	addr netip.Addr
	what string
}

// landmarks are the addresses of the cluster that are known: the pod's, its name
// servers' and those of Services that its environment names.
func (s *Session) landmarks() []landmark {
	var out []landmark
	for _, a := range s.target.PodIPs {
		out = append(out, landmark{a, "the pod's address"})
	}
	if rc, err := dnsproxy.ParseResolvConf(strings.NewReader(s.info.Resolv)); err == nil {
		for _, a := range rc.Nameservers {
			out = append(out, landmark{a, "the pod's name server"})
		}
	}
	for _, kv := range s.info.Env {
		name, value, _ := strings.Cut(kv, "=")
		a, err := netip.ParseAddr(value)
		if err == nil && strings.HasSuffix(name, "_SERVICE_HOST") {
			out = append(out, landmark{a, "of " + name})
		}
	}
	return out
}
