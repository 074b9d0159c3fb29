// Package relay copies bytes between the two conns of a flow until both
// directions have ended, and lets neither side see more of an end than the
// other side showed: a FIN arrives as a FIN, a reset as a reset.
package relay

import (
	"context"
	"net"
	"time"
)

// A Conn is a net.Conn whose two directions end separately. Conns that can
// send a reset have a method Reset() error as well; of a *net.TCPConn it is
// known that SetLinger(0) before Close does it.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Options are the limits of a relay. The zero value is ready to use.
type Options struct {
	// Idle ends a relay when no byte has moved in either direction for that
	// long. Zero means never: keepalives of the conns find dead peers.
	Idle time.Duration
	// HalfClosed ends a relay when one direction has ended and no byte has
	// moved in the other for that long. Zero means one minute, negative never.
	HalfClosed time.Duration
}

// Stats says what a relay has done.
type Stats struct {
	// AToB and BToA count the bytes that were written.
	AToB, BToA int64
	// Err is why the relay ended, nil if both directions ended with EOF.
	Err error
}

// Copy copies from a to b and from b to a until both directions have ended,
// ctx is done, or a timeout of opts has passed. Both conns are closed, and no
// goroutine of Copy is left, when it returns.
func Copy(ctx context.Context, a, b Conn, opts Options) Stats {
	return copyBoth(ctx, a, b, opts)
}
