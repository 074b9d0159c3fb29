package zone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// maxInFlight bounds the queries that are answered at a time; more are refused.
const maxInFlight = 256

// idleTimeout is how long a TCP connection may be without a query.
const idleTimeout = 10 * time.Second

// Serve answers queries that arrive at pc over UDP and at ln over TCP until ctx ends, then closes both and returns
// after its goroutines have ended.
func (z *Zone) Serve(ctx context.Context, pc net.PacketConn, ln net.Listener) error {
	slots := make(chan struct{}, maxInFlight)
	servers := []*dns.Server{
		{PacketConn: pc, Handler: z.handler("udp", slots)},
		{Listener: ln, Handler: z.handler("tcp", slots), IdleTimeout: func() time.Duration { return idleTimeout }},
	}
	ended := make(chan error, len(servers))
	for _, s := range servers {
		go func() { ended <- s.ActivateAndServe() }() // ends with its socket
	}
	var errs []error
	pending := len(servers)
	select {
	case <-ctx.Done():
	case err := <-ended:
		errs = append(errs, err)
		pending--
	}
	pc.Close()
	ln.Close()
	for range pending {
		errs = append(errs, <-ended)
	}
	for _, s := range servers {
		// Waits for queries in flight and ends idle connections; a server that
		// has not begun has none.
		_ = s.Shutdown()
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve DNS: %w", errors.Join(errs...))
}

func (z *Zone) handler(network string, slots chan struct{}) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			_ = w.WriteMsg(z.Answer(q, network)) // a client that is gone asks no more
		default:
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
		}
	})
}
