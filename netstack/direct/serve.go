package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/borrownet/borrownet/netstack/link"
)

// ServerConfig configures Serve. Only Logger may be nil.
type ServerConfig struct {
	Conn        net.PacketConn // closed when Serve returns
	Certificate *Certificate
	Verifier    *link.Verifier // of knocks
	// Admit takes a carrier that has proven nothing yet. It owns it.
	Admit    func(context.Context, io.ReadWriteCloser)
	Stranger func()        // told of each datagram that was dropped unread; must not block
	Idle     time.Duration // without a path Serve returns after this
	Logger   *slog.Logger  // nil discards
}

// Serve takes carriers until ctx ends or no client has a path for long, then returns nil. It returns after all its
// goroutines, and Admit, have ended.
func Serve(ctx context.Context, cfg ServerConfig) error {
	defer cfg.Conn.Close()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	transport := &quic.Transport{
		Conn: behindGate(cfg.Conn, cfg.Verifier, cfg.Stranger),
		// Who forges the client's address gets a Retry (RFC 9000 §8.1.2), which takes no memory.
		VerifySourceAddress: func(net.Addr) bool { return true },
	}
	defer transport.Close()
	listener, err := transport.Listen(serverTLS(cfg.Certificate), config(maxCarriers))
	if err != nil {
		return fmt.Errorf("serve carriers over UDP: %w", err)
	}
	defer listener.Close()

	ctx, cancel := context.WithCancel(ctx)
	var paths sync.WaitGroup
	defer paths.Wait()
	defer cancel()
	var last *quic.Conn
	for {
		conn, err := nextPath(ctx, listener, last, cfg.Idle)
		if err != nil {
			if last != nil {
				_ = last.CloseWithError(0, "")
			}
			if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("serve carriers over UDP: %w", err)
		}
		if last != nil {
			_ = last.CloseWithError(0, "replaced") // there is one client
		}
		last = conn
		cfg.Logger.Info("direct path", "peer", conn.RemoteAddr().String())
		paths.Go(func() { servePath(ctx, conn, cfg) })
	}
}

// nextPath waits for a path, without one at most for idle.
func nextPath(ctx context.Context, l *quic.Listener, last *quic.Conn, idle time.Duration) (*quic.Conn, error) {
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with this function
		if last != nil {
			select {
			case <-last.Context().Done():
			case <-waiting.Done():
				return
			}
		}
		over := time.NewTimer(idle)
		defer over.Stop()
		select {
		case <-over.C:
			cancel(context.DeadlineExceeded)
		case <-waiting.Done():
		}
	}()
	conn, err := l.Accept(waiting)
	if err != nil && context.Cause(waiting) != nil {
		return nil, context.Cause(waiting)
	}
	return conn, err
}

// servePath takes the carriers of one path.
func servePath(ctx context.Context, conn *quic.Conn, cfg ServerConfig) {
	var carriers sync.WaitGroup
	defer carriers.Wait()
	defer conn.CloseWithError(0, "")
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			cfg.Logger.Info("direct path ends", "peer", conn.RemoteAddr().String(), "err", err)
			return
		}
		carriers.Go(func() { cfg.Admit(ctx, &Carrier{stream}) })
	}
}
