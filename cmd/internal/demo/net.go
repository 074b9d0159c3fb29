package demo

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// packetBatch is how many packets cross between two stacks at once.
	packetBatch = 16
	// maxPacket is the largest IP packet.
	maxPacket = 65535
	// maxRefusing bounds the connections that the router refuses at a time.
	maxRefusing = 256
)

// ether joins the stacks of the world: a packet goes to the stack that has its
// destination, else to the router, which says that there is no such host.
type ether struct {
	log    *slog.Logger
	silent map[netip.Addr]bool // black holes
	router *netstack.Stack
	wg     sync.WaitGroup // one pump per stack, which ends with it

	mu    sync.RWMutex
	hosts map[netip.Addr]*netstack.Stack
	all   []*netstack.Stack
	taps  []*tap // who looks at packets
}

func newEther(log *slog.Logger) *ether {
	return &ether{log: log, hosts: map[netip.Addr]*netstack.Stack{}, silent: map[netip.Addr]bool{blackHole: true, blackHole6: true}}
}

// host makes the stack of a host with these addresses, before start.
func (e *ether) host(name string, addrs ...netip.Addr) (*netstack.Stack, error) {
	s, err := netstack.New(netstack.Config{Name: name, Addrs: addrs, IPv6: true, Logger: e.log})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, s)
	for _, a := range addrs {
		e.hosts[a] = s
	}
	return s, nil
}

// join is host after start.
func (e *ether) join(name string, addrs ...netip.Addr) (*netstack.Stack, error) {
	s, err := e.host(name, addrs...)
	if err == nil {
		e.wg.Go(func() { e.pump(s) })
	}
	return s, err
}

// route makes the router.
func (e *ether) route() error {
	s, err := netstack.New(netstack.Config{Name: "router", Transparent: true, IPv6: true, Logger: e.log})
	if err != nil {
		return err
	}
	e.router = s
	e.all = append(e.all, s)
	s.ForwardTCP(maxRefusing, func(r *netstack.TCPRequest) { r.Reject(noWay(r.Flow().Dst.Addr())) })
	s.ForwardUDP(func(f flow.Flow, _ []byte) {
		if err := s.SendUnreachable(f, noWay(f.Dst.Addr())); err != nil {
			e.log.Debug("router", "flow", f, "err", err)
		}
	})
	return nil
}

// noWay is what the router says of an address that no host has: the world has
// no way out.
func noWay(dst netip.Addr) syscall.Errno {
	if dst == gone || dst == gone6 {
		return syscall.EHOSTUNREACH
	}
	return syscall.ENETUNREACH
}

// start lets packets flow until close.
func (e *ether) start() {
	for _, s := range e.all {
		e.wg.Go(func() { e.pump(s) })
	}
}

// pump forwards what leaves s until s is closed.
func (e *ether) pump(s *netstack.Stack) {
	bufs, sizes := make([][]byte, packetBatch), make([]int, packetBatch)
	for i := range bufs {
		bufs[i] = make([]byte, maxPacket)
	}
	for {
		n, err := s.ReadPackets(bufs, sizes, 0)
		for i := range n {
			e.forward(bufs[i][:sizes[i]])
		}
		if err != nil {
			return
		}
	}
}

func (e *ether) forward(pkt []byte) {
	for _, t := range e.tapped() {
		t.see(pkt)
	}
	dst, ok := destination(pkt)
	switch {
	case !ok, e.silent[dst]:
	case e.at(dst) != nil:
		e.at(dst).Deliver(pkt)
	default:
		e.router.Deliver(pkt)
	}
}

// at returns the stack that has the address, or nil.
func (e *ether) at(a netip.Addr) *netstack.Stack {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.hosts[a]
}

// destination returns the destination in the header of an IP packet.
func destination(pkt []byte) (netip.Addr, bool) {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(pkt[16:20])), true
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(pkt[24:40])), true
	}
	return netip.Addr{}, false
}

// close ends all stacks: their conns are reset.
func (e *ether) close() error {
	e.mu.RLock()
	all := slices.Clone(e.all)
	e.mu.RUnlock()
	var errs []error
	for _, s := range all {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("end network of the demo: %w", err))
		}
	}
	e.wg.Wait()
	return errors.Join(errs...)
}
