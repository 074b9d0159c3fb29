package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/switchboard"
)

const (
	// maxCalls bounds the calls that are being answered, each a program's that waits.
	maxCalls = 1024
	// askTimeout bounds the time until a conn has said what it wants.
	askTimeout = 5 * time.Second
)

// A Handler does what the library asks for. Its methods may be called
// concurrently.
type Handler interface {
	// OpenTCP, OpenUDP and Publish are those of switchboard.Handler.
	OpenTCP(ctx context.Context, dst netip.AddrPort) (carry func(ctx context.Context, c *net.TCPConn), err error)
	OpenUDP(ctx context.Context, dst netip.AddrPort) (carry func(ctx context.Context, c *net.UDPConn), err error)
	Publish(ctx context.Context, at netip.AddrPort, v6only bool) error
	// Resolve answers a DNS query, nil if it cannot be answered.
	Resolve(ctx context.Context, query []byte) []byte
}

// Server serves the programs of one session.
type Server struct {
	// Listener gives conns of this user only. It is required.
	Listener net.Listener
	// Handler is required.
	Handler Handler
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger

	reserved farend.Reserved
}

// Run serves until ctx ends, then closes the listener and joins every call. It
// returns why it could not go on, nil if ctx ended.
func (s *Server) Run(ctx context.Context) error {
	log := s.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	f := newFlows(ctx, s.Handler, log)
	defer f.close()
	defer s.reserved.Close()
	defer cancel()
	return switchboard.Accept(ctx, s.Listener, maxCalls, log, func(ctx context.Context, conn *net.UnixConn) error {
		return s.serve(ctx, conn, f)
	})
}

// serve answers the one request of a conn.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, f *flows) error {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	conn.SetReadDeadline(time.Now().Add(askTimeout))
	req, fd, err := readRequest(conn)
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err != nil {
		return err
	}
	payload := make([]byte, req.Size)
	if _, err := io.ReadFull(conn, payload); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	conn.SetReadDeadline(time.Time{})
	defer s.watch(conn, cancel)()
	answer, body := s.answer(ctx, f, req, payload, fd)
	answer.Size = uint32(len(body))
	if _, err := conn.Write(append(answer.Append(nil), body...)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// watch calls gone when the program hangs up. The function that it returns ends
// that and joins it.
func (s *Server) watch(conn *net.UnixConn, gone func()) (stop func()) {
	done := make(chan struct{})
	go func() { // ends with the program's interest, or at stop
		defer close(done)
		var b [1]byte
		_, err := conn.Read(b[:])
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			gone()
		}
	}()
	return func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		<-done
	}
}

// answer decides about a request.
func (s *Server) answer(ctx context.Context, f *flows, req hook.Request, payload []byte, fd int) (hook.Answer, []byte) {
	if req.Op == hook.OpResolve {
		if reply := s.Handler.Resolve(ctx, payload); reply != nil && len(reply) <= hook.MaxMessage {
			return hook.Answer{Verdict: hook.VerdictDone}, reply
		}
		return failed(unix.ENETDOWN), nil
	}
	near, typ, err := socketOf(fd)
	if err == nil && req.Op == hook.OpListen {
		return s.publish(ctx, near), nil
	}
	if err != nil || !req.Addr.IsValid() {
		return failed(unix.EINVAL), nil
	}
	switch stream := typ == unix.SOCK_STREAM; {
	case req.Op == hook.OpPeer:
		return f.peer(near, stream, req.Addr), nil
	case req.Op == hook.OpSend:
		return f.target(ctx, near, req.Addr, false), nil
	case stream:
		return f.connect(ctx, near, req.Addr), nil
	}
	return f.target(ctx, near, req.Addr, true), nil
}

// publish publishes the port of a listener. Only one that is taken is the program's
// business: the rest is reachable at least from inside the session. One on loopback has
// a twin on the laptop, which the library has made.
func (s *Server) publish(ctx context.Context, near farend.Socket) hook.Answer {
	if farend.Name(near.FD).Addr().IsLoopback() {
		s.reserved.Keep(near.FD)
		return hook.Answer{Verdict: hook.VerdictDone}
	}
	only, err := unix.GetsockoptInt(near.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	v6only := near.Domain == unix.AF_INET6 && err == nil && only != 0
	if err := s.Handler.Publish(ctx, farend.Name(near.FD), v6only); errors.Is(err, unix.EADDRINUSE) {
		return failed(unix.EADDRINUSE)
	}
	return hook.Answer{Verdict: hook.VerdictDone}
}

// failed is the answer that lets a call fail.
func failed(errno syscall.Errno) hook.Answer {
	return hook.Answer{Verdict: hook.VerdictFail, Errno: uint32(errno)}
}

// socketOf looks at a program's socket: it must be one of the internet.
func socketOf(fd int) (s farend.Socket, typ int, err error) {
	if fd < 0 {
		return s, 0, unix.EBADF
	}
	s.FD = fd
	if s.Domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return s, 0, os.NewSyscallError("getsockopt", err)
	}
	if s.Domain != unix.AF_INET && s.Domain != unix.AF_INET6 {
		return s, 0, unix.EAFNOSUPPORT
	}
	typ, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return s, typ, err
}

// readRequest reads a request and the descriptor with it, -1 if there is none.
func readRequest(conn *net.UnixConn) (hook.Request, int, error) {
	b := make([]byte, hook.RequestSize)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return hook.Request{}, -1, fmt.Errorf("read request: %w", err)
	}
	fd, err := parseRight(oob[:oobn])
	if err != nil {
		return hook.Request{}, -1, fmt.Errorf("read request: %w", err)
	}
	req, err := hook.ParseRequest(b[:n])
	return req, fd, err
}

// parseRight returns the descriptor in the control data, -1 if there is none.
func parseRight(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return -1, errors.New("not one descriptor")
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}
