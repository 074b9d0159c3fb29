package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/netstack/direct"
	"github.com/borrownet/borrownet/netstack/link"
)

// ProtocolDirect is the name of carriers over UDP.
const ProtocolDirect = "direct"

const (
	// firstKnock is how long it takes until a path is looked for again, lastKnock how long at most.
	firstKnock = time.Second
	lastKnock  = 30 * time.Second
	// steady is how long a path lasts that was good for something.
	steady = time.Minute
	// shortcutTimeout bounds one attempt at a path, and at a carrier on it: there is another way.
	shortcutTimeout = 5 * time.Second
)

// located is a cluster whose pods have other addresses for this machine than for each other.
type located interface {
	Locate(netip.AddrPort) netip.AddrPort
}

// shortcut is the path over UDP, while there is one. The zero value has none.
type shortcut struct {
	mu    sync.Mutex
	path  *direct.Path  // nil = there is none
	err   error         // why there is none; nil = it is looked for
	moved chan struct{} // closed when err changes; nil = nobody waits for that
}

func (c *shortcut) set(p *direct.Path, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.path, c.err = p, err
	if c.moved != nil && p == nil {
		close(c.moved)
		c.moved = nil
	}
}

// await waits for a path that is not lost. Its error is ctx's, or an errNoDirect if there will be none. Nobody is told of a
// path: useShortcut ends the dials that wait for one, so that the next finds it and is not one too many.
func (c *shortcut) await(ctx context.Context) error {
	for {
		c.mu.Lock()
		path, err := c.path, c.err
		if c.moved == nil {
			c.moved = make(chan struct{})
		}
		moved := c.moved
		c.mu.Unlock()
		switch {
		case path != nil && path.Err() == nil:
			return nil
		case errors.Is(err, errNoDirect):
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// problem says why carriers do not go there.
func (c *shortcut) problem() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return "looking for a path"
	}
	return oneLine(c.err.Error())
}

// dial opens and proves a carrier, or returns nil.
func (c *shortcut) dial(ctx context.Context, id link.Identity) kube.Carrier {
	c.mu.Lock()
	path := c.path
	c.mu.Unlock()
	if path == nil {
		return nil
	}
	trying, cancel := context.WithTimeout(ctx, shortcutTimeout)
	defer cancel()
	carrier, err := path.Open(trying)
	if err == nil {
		carrier.Prefer(id.Role == link.RoleExpress)
		if err = link.Prove(trying, carrier, id); err != nil {
			carrier.Close()
		}
	}
	if err != nil {
		if ctx.Err() == nil { // else it was the caller's time that ended
			path.Close() // it is looked for anew
		}
		return nil
	}
	return directCarrier{carrier}
}

type directCarrier struct{ *direct.Carrier }

// Protocol implements kube.Carrier.
func (directCarrier) Protocol() string { return ProtocolDirect }

// seekShortcut looks for a path until the session leaves the pod, and has the carriers use it while there is one.
func (s *Session) seekShortcut() {
	for pause := firstKnock; ; pause = min(2*pause, lastKnock) {
		path, err := s.findShortcut()
		if err == nil {
			begun := time.Now()
			s.useShortcut(path)
			if time.Since(begun) >= steady {
				pause = firstKnock
			}
			err = fmt.Errorf("the path was lost: %w", path.Err())
		}
		s.shortcut.set(nil, err)
		s.log.Info("no direct path", "err", err)
		if errors.Is(err, errNoDirect) {
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// useShortcut has the carriers dialled anew, and returns when the path is lost: then they are, elsewhere, by themselves.
func (s *Session) useShortcut(path *direct.Path) {
	s.shortcut.set(path, nil)
	s.log.Info("direct path")
	s.tunnel.Redial()
	select {
	case <-path.Done():
	case <-s.ctx.Done():
	}
	path.Close()
}

// findShortcut tries the pod's addresses one after the other.
func (s *Session) findShortcut() (*direct.Path, error) {
	var errs []error
	for _, addr := range onePerFamily(s.target.PodIPs) {
		path, err := s.knockAt(addr)
		if err == nil {
			return path, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (s *Session) knockAt(addr netip.Addr) (*direct.Path, error) {
	ctx, cancel := context.WithTimeout(s.ctx, shortcutTimeout)
	defer cancel()
	open, err := s.control.direct(ctx, addr)
	if err != nil {
		return nil, err
	}
	// The address is the API server's word: of the agent's only the port is believed.
	to := netip.AddrPortFrom(addr, open.Port)
	if l, ok := s.cluster.(located); ok {
		to = l.Locate(to)
	}
	network := "udp4"
	if to.Addr().Is6() {
		network = "udp6"
	}
	socket, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	return direct.Dial(ctx, socket, to, s.id, open.Certificate)
}
