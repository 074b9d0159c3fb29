package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/netstack/relay"
)

// dialLimit bounds one connect to the cluster: a program that waits longer has
// its own kernel's timeout, 127 s, before.
const dialLimit = 130 * time.Second

// serveRelay serves programs whose sockets are the laptop's own.
func (s *Session) serveRelay(o *Opener) error {
	if len(s.req.RemoteLocalhost) > 0 {
		return &fault.Error{Code: fault.Hook, Op: "make localhost ports the pod's", Reason: "that needs a network namespace for the session, and it has none",
			Hint: "leave --remote-localhost out, or borrownet doctor", Err: errors.ErrUnsupported}
	}
	s.step(s.log)("opening the relay")
	var err error
	s.socket, s.endHook, err = s.serveSocket(o, func(ctx context.Context, ln net.Listener) error {
		return (&switchboard.Server{Listener: ln, Handler: &exchange{s.ground}, Logger: s.log}).Run(ctx)
	})
	return err
}

// serveSocket runs a server on a socket of its own until the session closes, or
// until end is called.
func (s *Session) serveSocket(o *Opener, run func(context.Context, net.Listener) error) (path string, end context.CancelFunc, err error) {
	name := socketName()
	ln, err := o.Dir.Listen(name)
	if err != nil {
		return "", nil, fmt.Errorf("serve programs: %w", err)
	}
	ctx, cancel := context.WithCancel(s.life)
	done := make(chan error, 1)
	go func() { done <- run(ctx, ln) }() // ends with ctx
	s.onEnd(func() error {
		cancel()
		return <-done
	})
	return o.Dir.Path(name), cancel, nil
}

// exchange opens flows for programs whose sockets are the laptop's own, and for
// forwards and proxies, from the client's stack. It implements switchboard.Handler.
type exchange struct{ ground *ground }

// session is at the pod where flows go now.
func (e *exchange) session() *Session { return e.ground.now.Load() }

// admit decides where dst is.
func (e *exchange) admit(dst netip.AddrPort) error {
	a := dst.Addr()
	switch {
	case e.session().locals.nameservers.has(dst):
		return nil
	case a.IsLoopback(), a.IsUnspecified():
		return switchboard.ErrLocal
	case e.session().locals.isLocal(a) && a != wire.AgentAddr && a != wire.ClientAddr:
		return nil
	case e.session().fabric.lost.Load(), a.IsMulticast(), a.IsLinkLocalUnicast() && a.Is6(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return syscall.ENETUNREACH
	case a == wire.AgentAddr, a == wire.ClientAddr:
		return syscall.EHOSTUNREACH // the agent's control is not for programs
	case a.Is6() && !HasIPv6(e.session().target.PodIPs):
		return syscall.ENETUNREACH
	}
	return nil
}

// OpenTCP implements switchboard.Handler.
func (e *exchange) OpenTCP(ctx context.Context, dst netip.AddrPort) (func(context.Context, *net.TCPConn), error) {
	s := e.session()
	if err := e.admit(dst); err != nil {
		return nil, err
	}
	if s.locals.nameservers.has(dst) {
		return func(ctx context.Context, c *net.TCPConn) {
			if c != nil {
				s.locals.dns.ServeTCP(ctx, c)
			}
		}, nil
	}
	guard := s.locals.guard
	if s.locals.isLocal(dst.Addr()) {
		guard = nil // the laptop's network is not the pod's
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	if guard.denies(ctx, dst) {
		return nil, syscall.EACCES
	}
	peer, err := e.dial(ctx, "tcp", dst)
	if err != nil {
		return nil, err
	}
	pod, ok := peer.(relay.Conn)
	if !ok {
		return nil, errors.Join(syscall.ENETUNREACH, peer.Close())
	}
	return guard.carryTo(pod), nil
}

// dial connects to dst from where the session's policy says.
func (e *exchange) dial(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
	if to, redirected := e.ground.redirects.target(dst); redirected {
		if !to.IsValid() {
			return nil, syscall.ECONNREFUSED
		}
		dst = to
	} else if !e.session().locals.isLocal(dst.Addr()) {
		return e.session().dialPod(ctx, network, dst)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, dst.String())
}

// OpenUDP implements switchboard.Handler.
func (e *exchange) OpenUDP(_ context.Context, dst netip.AddrPort) (func(context.Context, *net.UDPConn), error) {
	if err := e.admit(dst); err != nil {
		return nil, err
	}
	if e.session().locals.nameservers.has(dst) {
		return e.resolve, nil
	}
	return func(ctx context.Context, c *net.UDPConn) { e.exchange(ctx, c, dst) }, nil
}

// Publish implements switchboard.Handler. Listeners are the laptop's own here.
func (*exchange) Publish(context.Context, netip.AddrPort, bool) error { return nil }

// Attend implements switchboard.Handler.
func (*exchange) Attend(ctx context.Context) { <-ctx.Done() }

// resolve answers the queries that arrive on c until ctx ends.
func (e *exchange) resolve(ctx context.Context, c *net.UDPConn) {
	dns := e.session().locals.dns
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, maxPacket)
	for {
		n, err := c.Read(buf)
		if again, over := datagramEnd(ctx, err); over {
			return
		} else if again {
			continue
		}
		dns.Serve(buf[:n], func(reply []byte) {
			_, _ = c.Write(reply) // the program may have gone
		})
	}
}

// datagramEnd tells what an error of a datagram conn means: whether to read
// again, or that the flow is over.
func datagramEnd(ctx context.Context, err error) (again, over bool) {
	switch {
	case ctx.Err() != nil:
		return false, true
	case errors.Is(err, syscall.ECONNREFUSED):
		return true, false // about an earlier datagram
	}
	return false, err != nil
}

// exchange carries datagrams between c and dst until ctx ends.
func (e *exchange) exchange(ctx context.Context, c *net.UDPConn, dst netip.AddrPort) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pod net.Conn // dialled with the first datagram: many sockets never send one
	replies := make(chan struct{})
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, maxPacket)
	for {
		n, err := c.Read(buf)
		if again, over := datagramEnd(ctx, err); over {
			break
		} else if again {
			continue
		}
		if pod == nil {
			if pod, err = e.dial(ctx, "udp", dst); err != nil {
				e.session().log.Debug("datagram not carried", "dst", dst.String(), "err", err)
				pod = nil
				continue
			}
			go func() { // ends with pod
				defer close(replies)
				e.replies(pod, c)
			}()
		}
		if _, err := pod.Write(buf[:n]); isLate(err) {
			_, _ = pod.Write(buf[:n])
		}
	}
	if pod != nil {
		pod.Close()
		<-replies
	}
}

// replies passes datagrams back until pod is closed.
func (e *exchange) replies(pod net.Conn, c *net.UDPConn) {
	buf := make([]byte, maxPacket)
	for {
		n, err := pod.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case isLate(err):
			continue // a socket cannot be told without a packet that only root may send
		case err != nil:
			return
		}
		_, _ = c.Write(buf[:n]) // the program may have closed its socket
	}
}
