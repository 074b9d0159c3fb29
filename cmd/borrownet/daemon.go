package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/netstack/reclaim"
)

// debugVar makes the daemon log every flow; it is unstable.
const debugVar = "BORROWNET_DEBUG"

// daemonMain is the daemon's process.
func daemonMain(version string, args []string) int {
	report := func(error) {}
	if slices.Contains(args, daemon.SpawnedFlag) {
		var once sync.Once
		report = func(err error) { once.Do(func() { daemon.Report(err) }) }
	}
	level := slog.LevelInfo
	if os.Getenv(debugVar) != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	// A hang-up is for the terminal's programs.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	syscall.Umask(0o077)
	go reclaim.Run(ctx) // ends with the process
	if err := serveDaemon(ctx, version, log, report); err != nil {
		log.Error("daemon ends", "err", err)
		report(err)
		return 1
	}
	return 0
}

func serveDaemon(ctx context.Context, version string, log *slog.Logger, report func(error)) error {
	dir, err := rundir.Open()
	if err != nil {
		return err
	}
	keys := session.NewKeys(dir)
	keys.Sweep()
	defer func() {
		keys.Sweep()
		dir.Remove() // the last of them may have been what kept it
	}()
	return daemon.Run(ctx, daemon.Config{
		Dir: dir, Version: version, Logger: log, Keep: keptFile, Ready: func() { report(nil) },
		Opener: daemon.Sessions(&session.Opener{
			Dir: dir, Keys: keys, Helper: []string{selfPath(), verbNetns, dir.String()}, Logger: log, Connect: connect,
		}),
	})
}

// netnsMain is the process of a session's helper. Its first argument is the
// runtime directory, which it cleans up when the daemon was killed. The user is
// another one here, in a user namespace, so the directory is not looked up again.
func netnsMain(args []string) int {
	code := netns.Main(args[1:])
	if code != netns.ExitAbandoned {
		return code
	}
	dir, err := rundir.At(args[0])
	if err == nil {
		err = daemon.CleanUp(dir, keptFile)
	}
	if err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("helper ends", "err", err)
	}
	return code
}
