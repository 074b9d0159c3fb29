package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Config says what is served.
type Config struct {
	Dialer *Dialer
	Ports  []Port
	SOCKS  []netip.AddrPort // where a SOCKS5 proxy listens
	HTTP   []netip.AddrPort // where an HTTP proxy listens
	// Failed is told of connections that could not be served. It must not block.
	Failed func(Failure)
}

// Failure is a connection that could not be served.
type Failure struct {
	At   net.Addr // where it was accepted
	From net.Addr
	// Strange says that it was another user's.
	Strange bool
	Err     error
}

// Kind is what a door is.
type Kind string

// The kinds.
const (
	KindPort  Kind = "port"
	KindSOCKS Kind = "SOCKS5 proxy"
	KindHTTP  Kind = "HTTP proxy"
)

// Door is something that is served.
type Door struct {
	Kind Kind
	At   netip.AddrPort // what was asked for, its port the real one
	To   string         // of a port: the destination

	listeners []net.Listener
	serve     func(ctx context.Context, ln net.Listener) error
}

// Server serves doors.
type Server struct {
	cfg   Config
	doors []*Door
	room  chan struct{}  // holds one per connection that is being set up
	conns sync.WaitGroup // connections
}

// Listen opens every door. Run must be called.
func Listen(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, room: make(chan struct{}, maxConns)}
	for _, p := range cfg.Ports {
		s.add(&Door{Kind: KindPort, At: p.Listen, To: p.String(), serve: s.accept(func(ctx context.Context, c *net.TCPConn) error {
			return s.forward(ctx, c, p)
		})})
	}
	for _, at := range cfg.SOCKS {
		s.add(&Door{Kind: KindSOCKS, At: at, serve: s.accept(s.socks)})
	}
	for _, at := range cfg.HTTP {
		s.add(&Door{Kind: KindHTTP, At: at, serve: s.httpProxy})
	}
	for _, d := range s.doors {
		lns, err := listen(d.At)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		d.At = address(lns[0].Addr())
		for _, ln := range lns {
			d.listeners = append(d.listeners, guard(ln, func(peer net.Addr, why string) {
				s.cfg.Failed(Failure{At: ln.Addr(), From: peer, Strange: true, Err: errors.New(why)})
			}))
		}
	}
	return s, nil
}

func (s *Server) add(d *Door) { s.doors = append(s.doors, d) }

// Doors returns what is served.
func (s *Server) Doors() []*Door { return s.doors }

func (s *Server) close() error {
	var errs []error
	for _, d := range s.doors {
		for _, ln := range d.listeners {
			errs = append(errs, ln.Close())
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, then closes the listeners and what is being set up; it
// returns nil then. Connections that the daemon has go on.
func (s *Server) Run(ctx context.Context) error {
	serving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, d := range s.doors {
		for _, ln := range d.listeners {
			wg.Go(func() { // ends with serving
				if err := d.serve(serving, ln); err != nil && serving.Err() == nil {
					cancel(fmt.Errorf("serve %v: %w", ln.Addr(), err))
				}
			})
		}
	}
	<-serving.Done()
	s.close()
	wg.Wait()
	s.conns.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(serving)
}

// accept returns what serves the connections of a listener by handle, which owns
// them.
func (s *Server) accept(handle func(context.Context, *net.TCPConn) error) func(context.Context, net.Listener) error {
	return func(ctx context.Context, ln net.Listener) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			conn := c.(*net.TCPConn) // what guard gives
			at, from := conn.LocalAddr(), conn.RemoteAddr()
			select {
			case s.room <- struct{}{}:
			default:
				reset(conn)
				s.cfg.Failed(Failure{At: at, From: from, Err: errors.New("too many connections are being set up")})
				continue
			}
			s.conns.Go(func() { // ends with the connection's set-up, or with ctx
				defer func() { <-s.room }()
				defer context.AfterFunc(ctx, func() { reset(conn) })()
				if err := handle(ctx, conn); err != nil && ctx.Err() == nil {
					s.cfg.Failed(Failure{At: at, From: from, Err: err})
				}
			})
		}
	}
}

// forward makes c a connection to p. One that is refused there is reset here: it
// was accepted before that could be known.
func (s *Server) forward(ctx context.Context, c *net.TCPConn, p Port) error {
	f, err := s.cfg.Dialer.open(ctx, p.Host, p.Port)
	if err != nil {
		reset(c)
		return err
	}
	return hand(f, c)
}
