// Package observe is what the sample apps share: an HTTP handler that answers
// with what it saw of the request, and a way to run servers until the pod is
// told to stop.
package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// A Server serves until ctx is done and then returns nil.
type Server func(ctx context.Context) error

// Run runs the servers until SIGTERM, SIGINT or the first failure and returns
// the exit code of the app.
func Run(app string, servers ...Server) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stdout, nil)).With("app", app)
	log.Info("serving", "pod", Pod())
	if err := serve(ctx, servers); err != nil {
		log.Error("stopped", "err", err)
		return 1
	}
	log.Info("stopped")
	return 0
}

func serve(ctx context.Context, servers []Server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			// One app without one of its ports would only puzzle the tests.
			if errs[i] = s(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Pod returns the name of the pod: POD_NAME, else the host name.
func Pod() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Sprintf("unknown (%v)", err)
	}
	return name
}
