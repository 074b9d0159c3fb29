package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// Config configures a daemon.
type Config struct {
	Dir     *rundir.Dir
	Opener  Opener
	Version string
	Logger  *slog.Logger // nil discards
	// Keep reports the files in Dir that outlive the daemon; nil keeps none.
	Keep func(name string) bool
	// Ready is called once the socket takes requests.
	Ready func()
	// FirstRequest is how long the daemon waits for one before it ends; 0 means 10 s.
	FirstRequest time.Duration
}

const (
	lockWait = 5 * time.Second        // for an earlier daemon to be gone
	endRetry = 100 * time.Millisecond // while a client holds the start lock
)

// Run serves until ctx ends or nothing needs the daemon any more. It leaves
// nothing in the runtime directory but what Config.Keep names.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.FirstRequest == 0 {
		cfg.FirstRequest = 10 * time.Second
	}
	if cfg.Keep == nil {
		cfg.Keep = func(string) bool { return false }
	}
	lock, err := takeDaemonLock(ctx, cfg.Dir)
	if err != nil {
		return err
	}
	defer func() {
		lock.Release()
		cfg.Dir.Remove()
	}()
	keep := func(name string) bool { return name == rundir.LogName || cfg.Keep(name) }
	if err := cfg.Dir.Sweep(keep); err != nil {
		cfg.Logger.Warn("stale files stay", "err", err)
	}
	ln, err := cfg.Dir.Listen(rundir.SocketName)
	if err != nil {
		return err
	}
	return serve(ctx, cfg, ln)
}

func takeDaemonLock(ctx context.Context, dir *rundir.Dir) (*rundir.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	lock, err := dir.Lock(ctx, rundir.DaemonLock)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("another daemon is running: %w", err)
	case err != nil:
		return nil, &fault.Error{Code: fault.Laptop, ID: "BN2001", Op: "use runtime directory", Object: dir.String(), Reason: err.Error(), Err: err,
			Hint: "is there room? df -h " + dir.String() + "; df -i " + dir.String()}
	}
	return lock, nil
}

func serve(ctx context.Context, cfg Config, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{ctx: ctx, opener: cfg.Opener, version: cfg.Version, log: cfg.Logger, sessions: newRegistry()}
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	cfg.Logger.Info("daemon serves", "socket", ln.Addr().String(), "pid", os.Getpid())
	if cfg.Ready != nil {
		cfg.Ready()
	}

	startLock, err := s.untilIdle(ctx, cfg, served)
	// Order: no new requests, then the sessions, then the streams that wait for
	// their sessions' end, then the files.
	s.sessions.shut()
	cancel()
	s.wg.Wait()
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer stop()
	if shutErr := srv.Shutdown(end); shutErr != nil {
		srv.Close()
	}
	s.wg.Wait() // a session that became ready as the daemon was told to end
	cfg.Logger.Info("daemon ends")
	_ = os.Remove(cfg.Dir.Path(rundir.LogName))
	if startLock != nil {
		startLock.Release()
	}
	return err
}

// untilIdle waits until the daemon has to end. If that is because nothing needs
// it, the start lock is returned.
func (s *server) untilIdle(ctx context.Context, cfg Config, served <-chan error) (*rundir.Lock, error) {
	timer := time.NewTimer(cfg.FirstRequest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case err := <-served:
			return nil, fmt.Errorf("serve API: %w", err)
		case <-s.sessions.changed:
		case <-timer.C:
		}
		if !s.sessions.idle() {
			continue
		}
		lock, err := cfg.Dir.TryLock(rundir.StartLock)
		switch {
		case errors.Is(err, rundir.ErrLocked):
			timer.Reset(endRetry) // a client is about to send a request
			continue
		case err != nil:
			return nil, err
		case s.sessions.idle():
			return lock, nil
		}
		lock.Release()
	}
}
