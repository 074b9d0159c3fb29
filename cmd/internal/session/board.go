package session

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

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
	go func() { served <- (&switchboard.Server{Listener: ln, Handler: board{s.ports}, Logger: s.log}).Run(ctx) }() // ends with ctx
	go func() { defer close(looked); s.ports.run() }()                                                             // ends with ctx
	s.onEnd(func() error {
		cancel()
		<-looked
		return <-served
	})
	return nil
}

// board is the switchboard of a session with a namespace: there are ports to be
// had, and no flows, because those are native. It implements switchboard.Handler.
type board struct{ ports *ports }

func (b board) Publish(_ context.Context, at netip.AddrPort, v6only bool) error {
	return b.ports.publish(at, v6only)
}

func (b board) Attend(ctx context.Context) { b.ports.attend(ctx) }

func (board) OpenTCP(context.Context, netip.AddrPort) (func(context.Context, *net.TCPConn), error) {
	return nil, syscall.ENETUNREACH
}

func (board) OpenUDP(context.Context, netip.AddrPort) (func(context.Context, *net.UDPConn), error) {
	return nil, syscall.ENETUNREACH
}
