package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/relay"
)

const (
	// scanPause is the time between two looks at what programs listen on.
	scanPause = 500 * time.Millisecond
	// soon is when a program that has asked for its port listens.
	soon = 50 * time.Millisecond
	// youth is how long a published port may wait for its program to listen: it
	// asks just before it does.
	youth = 2 * time.Second
	// maxPorts bounds the ports that are published, of each protocol; those of TCP by both
	// families.
	maxPorts = 256
	// maxPublishedConns bounds the connections from the laptop to programs.
	maxPublishedConns = 1024
)

// Publish says which ports of programs are opened on the laptop's loopback. The
// zero value is all, each under its own number.
type Publish struct {
	None bool              `json:"none,omitempty"`
	As   map[uint16]uint16 `json:"as,omitempty"` // port of the program: port of the laptop
}

// host is the laptop's port for the program's.
func (p Publish) host(port uint16) uint16 {
	if h, ok := p.As[port]; ok {
		return h
	}
	return port
}

// PublishedPort is a port of a program that the laptop can reach.
type PublishedPort struct {
	Proto   string `json:"proto"`
	Port    uint16 `json:"port"`              // where the program listens
	Host    uint16 `json:"host"`              // on the laptop's loopback
	Problem string `json:"problem,omitempty"` // why it is not there
}

// insider sees and reaches programs from inside their namespace.
type insider interface {
	Ports() ([]netns.Port, error)
	Avoid(ports []uint16) error
	DialTCP(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error)
}

// ports publishes on the laptop's loopback what programs of the session listen on,
// as long as they do. TCP ports are asked for by listen(2), so that a program hears
// of one that is taken; UDP ports, and what went past that, are found by looking.
type ports struct {
	policy Publish
	inside insider
	// dial connects to a loopback address of the session, sendUDP sends there.
	dial    func(ctx context.Context, dst netip.AddrPort) (relay.Conn, error)
	sendUDP func(src, dst netip.AddrPort, payload []byte) error
	log     *slog.Logger
	conns   chan struct{} // a slot per connection
	rescan  chan struct{} // buffered 1: look now
	wg      sync.WaitGroup

	ctx context.Context // done when everything closes

	scanning sync.Mutex // held by a scan, before mu: an earlier one must not undo what a later one has found
	avoided  []uint16   // what the session's kernel was told last; guarded by scanning
	deaf     bool       // it can be told nothing; guarded by scanning

	mu     sync.Mutex
	runs   int // programs that run
	tcp    map[door]*openTCP
	udp    map[uint16]*openUDP
	failed map[PublishedPort]bool // with Problem: what could not be published
}

func newPorts(ctx context.Context, policy Publish, inside insider, log *slog.Logger) *ports {
	return &ports{
		ctx: ctx, policy: policy, inside: inside, log: log, conns: make(chan struct{}, maxPublishedConns), rescan: make(chan struct{}, 1),
		tcp: map[door]*openTCP{}, udp: map[uint16]*openUDP{}, failed: map[PublishedPort]bool{},
	}
}

// run looks and serves until ctx ends, then closes every port and joins all that
// it started.
func (p *ports) run() {
	tick := time.NewTicker(scanPause)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			p.closeAll()
			p.wg.Wait()
			return
		case <-p.rescan:
		case <-tick.C:
			if p.idle() {
				tick.Stop()
				select {
				case <-p.rescan:
				case <-p.ctx.Done():
				}
				tick.Reset(scanPause)
			}
		}
		if p.ctx.Err() == nil {
			p.scan()
		}
	}
}

// idle reports whether there is nothing to look for.
func (p *ports) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs == 0 && len(p.tcp)+len(p.udp)+len(p.failed) == 0
}

// look makes run scan soon.
func (p *ports) look() {
	select {
	case p.rescan <- struct{}{}:
	default:
	}
}

// attend notes that programs run until ctx ends.
func (p *ports) attend(ctx context.Context) {
	p.mu.Lock()
	p.runs++
	p.mu.Unlock()
	p.look()
	<-ctx.Done()
	p.mu.Lock()
	p.runs--
	p.mu.Unlock()
	p.look() // what they listened on is gone
}

// publish opens the port of a TCP listener at the address, which is about to
// listen. One on loopback the laptop has itself, which asks if it finds the port taken:
// for a program of this session that is gone, perhaps.
func (p *ports) publish(at netip.AddrPort, v6only bool) error {
	if p.policy.None {
		return nil
	}
	if at.Addr().Unmap().IsLoopback() {
		p.scan()
		return nil
	}
	want := netns.Port{Proto: flow.TCP, At: at, IPv6: at.Addr().Is6(), V6Only: v6only}
	if p.isOpen(want) {
		// For a program that is gone, perhaps: the next look would close it.
		p.scan()
	}
	err := p.openTCP(want, false)
	if errors.Is(err, syscall.EADDRINUSE) {
		// By a program of this session that is gone, perhaps.
		p.scan()
		err = p.openTCP(want, false)
	}
	if errors.Is(err, syscall.EADDRINUSE) && !at.Addr().IsUnspecified() {
		// Beside a listener on the pod's address there may be another one on
		// 127.0.0.1: the program does not mind.
		p.log.Info("port is not published", "port", at.Port(), "err", err)
		return nil
	}
	if err == nil {
		time.AfterFunc(soon, p.look) // so that its end is noticed when it comes
	}
	return err
}

// scan compares what is open with what programs listen on.
func (p *ports) scan() {
	p.scanning.Lock()
	defer p.scanning.Unlock()
	p.avoid()
	found, err := p.inside.Ports()
	if err != nil {
		p.log.Debug("ports of the session are not known", "err", err)
		if errors.Is(err, syscall.ENETDOWN) {
			p.closeAll() // no namespace, no programs in it
		}
		return
	}
	tcp, udp := map[door]netns.Port{}, map[uint16]bool{}
	for _, f := range found {
		switch {
		case f.Proto == flow.TCP:
			for _, d := range doorsOf(f) {
				if other, ok := tcp[d]; !ok || nearer(f, other) {
					tcp[d] = f
				}
			}
		case p.worthPublishing(f):
			udp[f.At.Port()] = true
		}
	}
	p.closeGone(tcp, udp)
	if p.policy.None {
		return
	}
	p.openAll(found, udp)
}

// openAll opens what the listeners need, and notes of each port the first problem that one of them has.
func (p *ports) openAll(found []netns.Port, udp map[uint16]bool) {
	type name struct {
		proto flow.Proto
		port  uint16
	}
	worst := map[name]error{}
	ports := map[name]netns.Port{}
	for _, f := range found {
		var err error
		switch {
		case f.Proto == flow.TCP:
			err = p.openTCP(f, true)
		case udp[f.At.Port()]:
			err = p.openUDP(f)
		default:
			continue
		}
		n := name{f.Proto, f.At.Port()}
		if worst[n] == nil {
			worst[n], ports[n] = err, f
		}
	}
	for n, err := range worst {
		p.note(ports[n], err)
	}
}

// avoid keeps the session's kernel from choosing ports that somebody on the laptop has,
// other sessions among them, which all choose out of the same. Where /proc/sys is for
// reading only, as in most containers, it is tried once.
func (p *ports) avoid() {
	if p.deaf {
		return
	}
	taken, err := netns.Taken()
	if err == nil {
		if slices.Equal(taken, p.avoided) {
			return
		}
		err = p.inside.Avoid(taken)
		p.deaf = errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES)
	}
	if err != nil {
		p.log.Debug("ports of the laptop are not avoided", "err", err)
		return
	}
	p.avoided = taken
}

// worthPublishing reports whether a UDP socket may be a server, and can be reached
// from the laptop's loopback.
func (p *ports) worthPublishing(f netns.Port) bool {
	a := f.At.Addr()
	auto := f.At.Port() >= netns.FirstAutoPort // clients, whose ports nobody wants to reach
	return !auto && !f.V6Only && (a.IsUnspecified() || a.Is4() && a.IsLoopback())
}

// closeGone closes what no program listens on any more, and leads the rest to who does.
func (p *ports) closeGone(tcp map[door]netns.Port, udp map[uint16]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, o := range p.tcp {
		at, listens := tcp[d]
		switch {
		case listens:
			o.at, o.seen = at, true
		case o.seen || p.runs == 0 || time.Since(o.since) > youth:
			o.listener.Close()
			delete(p.tcp, d)
		}
	}
	for port, o := range p.udp {
		if !udp[port] {
			o.close()
			delete(p.udp, port)
		}
	}
	for f := range p.failed {
		listens := udp[f.Port]
		if f.Proto == flow.TCP.String() {
			_, by4 := tcp[door{port: f.Port}]
			_, by6 := tcp[door{f.Port, true}]
			listens = by4 || by6
		}
		if !listens {
			delete(p.failed, f)
		}
	}
}

// note remembers why a port could not be published, and says it once, until it is.
func (p *ports) note(f netns.Port, err error) {
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		maps.DeleteFunc(p.failed, func(was PublishedPort, _ bool) bool { return was.Proto == f.Proto.String() && was.Port == f.At.Port() })
		return
	}
	host := p.policy.host(f.At.Port())
	problem := fmt.Sprintf("port %d of this machine: %v", host, errnoText(err))
	out := PublishedPort{Proto: f.Proto.String(), Port: f.At.Port(), Host: host, Problem: problem}
	p.mu.Lock()
	known := p.failed[out]
	if !known && len(p.failed) < maxPorts {
		p.failed[out] = true
	}
	p.mu.Unlock()
	if !known {
		p.log.Warn("port is not published", "proto", f.Proto.String(), "port", f.At.Port(), "err", err)
	}
}

func errnoText(err error) error {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// closeAll closes every port. Connections that are open go on.
func (p *ports) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, o := range p.tcp {
		o.listener.Close()
		delete(p.tcp, d)
	}
	for port, o := range p.udp {
		o.close()
		delete(p.udp, port)
	}
}

// owns reports whether the TCP port of the laptop at this address is only a way back to
// the same port of the session.
func (p *ports) owns(at netip.AddrPort) bool {
	if p == nil || at.Addr() != localhost && at.Addr() != netip.IPv6Loopback() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.tcp[door{at.Port(), at.Addr().Is6()}]
	return o != nil && o.host == at.Port()
}

// list is what status shows.
func (p *ports) list() []PublishedPort {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []PublishedPort
	for d, o := range p.tcp {
		if d.v6 && p.tcp[door{port: d.port}] != nil {
			continue // one line for both
		}
		out = append(out, PublishedPort{Proto: flow.TCP.String(), Port: d.port, Host: o.host})
	}
	for port, o := range p.udp {
		out = append(out, PublishedPort{Proto: flow.UDP.String(), Port: port, Host: o.host})
	}
	for f := range p.failed {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b PublishedPort) int {
		if a.Port != b.Port {
			return int(a.Port) - int(b.Port)
		}
		return int(a.Proto[0]) - int(b.Proto[0])
	})
	return out
}
