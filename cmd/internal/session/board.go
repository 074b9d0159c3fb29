package session

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/switchboard"
)

// openPorts serves programs of the namespace that listen.
func (s *Session) openPorts(o *Opener) error {
	inside, err := netns.Dial(s.socket)
	if err != nil {
		return err
	}
	s.onEnd(inside.Close)
	name := socketName()
	ln, err := o.Dir.Listen(name)
	if err != nil {
		return fmt.Errorf("serve programs: %w", err)
	}
	s.board = o.Dir.Path(name)
	ctx, cancel := context.WithCancel(s.life)
	s.ports = newPorts(ctx, s.req.Publish, inside, s.log)
	s.ports.dial, s.ports.sendUDP = s.locals.dialProgram, s.stack.SendUDP
	s.locals.ports.Store(s.ports)
	served, looked := make(chan error, 1), make(chan struct{})
	go func() {
		served <- (&switchboard.Server{Listener: ln, Handler: board{exchange: &exchange{s.ground}, ports: s.ports}, Logger: s.log}).Run(ctx)
	}() // ends with ctx
	go func() { defer close(looked); s.ports.run() }() // ends with ctx
	s.onEnd(func() error {
		cancel()
		<-looked
		return <-served
	})
	return nil
}

// board is the switchboard of a session with a namespace: programs have native
// flows, so those that are opened here are of forwards and proxies. It implements
// switchboard.Handler.
type board struct {
	*exchange
	ports *ports
}

// OpenTCP opens a flow to the pod's own loopback too, as far as that is the session's.
func (b board) OpenTCP(ctx context.Context, dst netip.AddrPort) (func(context.Context, *net.TCPConn), error) {
	remote, err := b.session().openRemote(dst)
	switch {
	case err != nil:
		return nil, err
	case remote != nil:
		return b.session().locals.guard.carryTo(remote), nil
	}
	return b.exchange.OpenTCP(ctx, dst)
}

func (b board) Publish(_ context.Context, at netip.AddrPort, v6only bool) error {
	return b.ports.publish(at, v6only)
}

func (b board) Attend(ctx context.Context) { b.ports.attend(ctx) }
