package switchboard

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
)

// Accept serves the conns of ln, each in a goroutine of its own and at most limit at
// a time: others are hung up on. When ctx ends it closes the listener and returns
// nil once every conn is served; before that, why it could not go on.
func Accept(ctx context.Context, ln net.Listener, limit int, log *slog.Logger, serve func(context.Context, *net.UnixConn) error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	defer ln.Close()
	room := make(chan struct{}, limit)
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		conn, ok := c.(*net.UnixConn)
		if !ok {
			c.Close()
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			log.Warn("too many calls of programs, one is refused", "calls", limit)
			conn.Close() // the program hears that there is no network
			continue
		}
		wg.Go(func() { // ends with the call, or with ctx
			defer func() { <-room }()
			if err := serve(ctx, conn); err != nil {
				log.Debug("call of a program not served", "err", err)
			}
		})
	}
}
