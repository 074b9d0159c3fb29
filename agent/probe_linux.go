package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
)

var _ Prober = Kernel{}

// Where Envoy's administration interface listens in a pod of Istio.
var envoyAdmin = []string{"http://127.0.0.1:15000", "http://[::1]:15000"}

// Who has accepted a probe is looked for again after the first of these pauses, after twice that, and so on up to the last:
// each look reads the node's whole socket table.
const (
	firstAcceptPause = 2 * time.Millisecond
	lastAcceptPause  = 32 * time.Millisecond
)

// Probe implements Prober. The other end is looked up while the probe is open:
// of one that the proxy has closed already the kernel keeps the addresses.
func (k Kernel) Probe(ctx context.Context, dst netip.AddrPort) wire.Path {
	path := wire.Path{To: dst}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", dst.String())
	if err != nil {
		path.Problem = problemOf(err)
		return path
	}
	defer conn.Close()
	path.Connected = true
	// The last packet of the handshake may still be on its way to the other end, for
	// longer where the kernel has left it to a thread of its own.
	for pause := firstAcceptPause; ; pause *= 2 {
		at, uid, err := acceptedBy(localAddr(conn))
		if err != nil {
			path.Problem = "the pod's socket table cannot be read: " + err.Error()
			return path
		}
		if at.IsValid() {
			path.Via = at
			if uid >= 0 {
				path.Owner = &uid
			}
			return path
		}
		if pause > lastAcceptPause {
			return path
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return path
		}
	}
}

func problemOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}

// Identity implements Prober.
func (Kernel) Identity(ctx context.Context) wire.Identity {
	var id wire.Identity
	for _, base := range envoyAdmin {
		if id = envoyIdentity(ctx, base); id.ID != "" {
			break
		}
	}
	return id
}
