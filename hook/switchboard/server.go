package switchboard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// maxFlows bounds the flows of a server, those being opened included.
	maxFlows = 4096
	// askTimeout bounds the time until a conn has said what it wants.
	askTimeout = 5 * time.Second
	// attachTimeout bounds the time from the answer to the far end: the client
	// has it ready in microseconds.
	attachTimeout = 10 * time.Second
)

// A Handler opens flows and ports. Its methods may be called concurrently. An
// error is ErrLocal or wraps the errno that the program's system call gives.
type Handler interface {
	// OpenTCP connects to dst and returns what carries the flow to the far end
	// until either ends. If c is nil there will be none.
	OpenTCP(ctx context.Context, dst netip.AddrPort) (carry func(ctx context.Context, c *net.TCPConn), err error)
	// OpenUDP returns what carries datagrams between dst and the far end until
	// ctx ends. It must not wait for the network.
	OpenUDP(ctx context.Context, dst netip.AddrPort) (carry func(ctx context.Context, c *net.UDPConn), err error)
	// Publish is Client.Publish.
	Publish(ctx context.Context, at netip.AddrPort, v6only bool) error
	// Attend is called when programs run, and returns when ctx ends: then none of
	// that client does.
	Attend(ctx context.Context)
}

// Server serves the clients of one listener.
type Server struct {
	// Listener gives conns of this user only. It is required.
	Listener net.Listener
	// Handler is required.
	Handler Handler
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// Run serves until ctx ends, then closes the listener and joins every flow. It
// returns why it could not go on, nil if ctx ended.
func (s *Server) Run(ctx context.Context) error {
	log := s.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return Accept(ctx, s.Listener, maxFlows, log, s.serve)
}

// serve serves one flow.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) error {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	conn.SetReadDeadline(time.Now().Add(askTimeout))
	var b [requestSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // Dial only looks whether somebody is here
		}
		return fmt.Errorf("read request: %w", err)
	}
	conn.SetReadDeadline(time.Time{})
	r, err := parseRequest(b[:])
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	switch r.want {
	case wantPort, wantPortOnlyV6:
		return reply(conn, s.Handler.Publish(ctx, r.dst, r.want == wantPortOnlyV6))
	case wantAttention:
		return s.attend(ctx, conn)
	}
	// What comes next is the far end, or the end of a client that has lost
	// interest. It is awaited from now on, so that the latter cancels the dial.
	far := make(chan *os.File, 1)
	received := make(chan struct{})
	go func() { // ends with a message, with the client, or with ctx
		defer close(received)
		defer close(far)
		f, err := recvFD(conn)
		if err != nil {
			cancel()
			return
		}
		far <- f
	}()
	defer func() {
		cancel()
		<-received
		if f := <-far; f != nil {
			f.Close()
		}
	}()
	if r.proto == flow.UDP {
		return s.udp(ctx, conn, r.dst, far)
	}
	return s.tcp(ctx, conn, r.dst, far)
}

// attend lasts as long as the client.
func (s *Server) attend(ctx context.Context, conn *net.UnixConn) error {
	if _, err := conn.Write(answerOf(nil)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var client sync.WaitGroup
	client.Go(func() { // ends with the client, or with ctx
		defer cancel()
		var b [1]byte
		_, _ = conn.Read(b[:])
	})
	s.Handler.Attend(ctx)
	conn.Close()
	client.Wait()
	return nil
}

func (s *Server) tcp(ctx context.Context, conn *net.UnixConn, dst netip.AddrPort, far <-chan *os.File) error {
	carry, err := s.Handler.OpenTCP(ctx, dst)
	if err != nil {
		return reply(conn, err)
	}
	end, err := s.join(conn, far)
	if err != nil {
		carry(ctx, nil)
		return err
	}
	c, ok := end.(*net.TCPConn)
	if !ok {
		carry(ctx, nil)
		return errors.Join(errors.New("far end is not TCP"), end.Close())
	}
	carry(ctx, c) // the client has left; from here on ctx ends with the server alone
	return nil
}

func (s *Server) udp(ctx context.Context, conn *net.UnixConn, dst netip.AddrPort, far <-chan *os.File) error {
	carry, err := s.Handler.OpenUDP(ctx, dst)
	if err != nil {
		return reply(conn, err)
	}
	end, err := s.join(conn, far)
	if err != nil {
		return err
	}
	defer end.Close()
	c, ok := end.(*net.UDPConn)
	if !ok {
		return errors.New("far end is not UDP")
	}
	ctx, cancel := context.WithCancel(ctx)
	var client sync.WaitGroup
	client.Go(func() { // ends with the client, or when conn is closed
		defer cancel()
		var b [1]byte
		_, _ = conn.Read(b[:])
	})
	carry(ctx, c)
	cancel()
	conn.Close()
	client.Wait()
	return nil
}

// reply answers with err, or that all is well.
func reply(conn *net.UnixConn, err error) error {
	_, werr := conn.Write(answerOf(err))
	return errors.Join(err, werr)
}

// join answers that the flow is open and takes its far end.
func (s *Server) join(conn *net.UnixConn, far <-chan *os.File) (net.Conn, error) {
	if _, err := conn.Write(answerOf(nil)); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	limit := time.NewTimer(attachTimeout)
	defer limit.Stop()
	select {
	case f := <-far:
		if f == nil {
			return nil, errors.New("client gone before the far end came")
		}
		defer f.Close()
		return net.FileConn(f)
	case <-limit.C:
		return nil, errors.New("no far end")
	}
}
