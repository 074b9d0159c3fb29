// Package relay copies bytes between the two conns of a flow until both
// directions have ended, and shows each side the end that the other side
// showed: a FIN arrives as a FIN, a reset as a reset.
package relay

import (
	"context"
	"net"
	"time"
)

// A Conn is a net.Conn whose two directions end separately. A Conn that can
// send a reset has a method Reset() error as well; of a *net.TCPConn it is
// known that SetLinger(0) before Close does it.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Options are the limits of a relay. The zero value is ready to use.
type Options struct {
	// Idle ends a relay in which no byte has moved, either way, for that long
	// (at most twice as long). Zero means never: the keepalives of the conns
	// find dead peers.
	Idle time.Duration
	// HalfClosed does the same once one direction has ended. Zero means one
	// minute, negative never.
	HalfClosed time.Duration
}

// Stats says what a relay has done.
type Stats struct {
	// AToB and BToA count the bytes written to b and to a.
	AToB, BToA int64
	// Err is why the relay has ended: nil if both directions ended with EOF,
	// else the first failure, ErrIdle, or the cause of ctx's end.
	Err error
}

// Copy copies from a to b and from b to a until both directions have ended,
// one has failed, ctx is done, or a limit of opts has passed. EOF of one
// direction is passed on by CloseWrite while the other goes on; every other end
// resets both conns. Both are closed, and no goroutine of Copy is left, when it
// returns.
func Copy(ctx context.Context, a, b Conn, opts Options) Stats {
	if opts.HalfClosed == 0 {
		opts.HalfClosed = defaultHalfClosed
	}
	r := &relay{a: a, b: b, opts: opts}
	return r.run(ctx)
}
