package session

import (
	"context"
	"net"
	"net/netip"
	"os"

	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook/broker"
)

// hostsFile names hosts on the laptop itself.
const hostsFile = "/etc/hosts"

// serveBroker serves the preload library in programs of the session.
func (s *Session) serveBroker(o *Opener) error {
	path, _, err := s.serveSocket(o, func(ctx context.Context, ln net.Listener) error {
		return (&broker.Server{Listener: ln, Handler: desk{&exchange{s.ground}}, Logger: s.log}).Run(ctx)
	})
	s.broker = path
	return err
}

// desk answers the preload library. It implements broker.Handler.
type desk struct{ *exchange }

// Publish implements broker.Handler: in a session without a namespace listeners are
// the laptop's own.
func (d desk) Publish(_ context.Context, at netip.AddrPort, v6only bool) error {
	if d.ground.ports == nil {
		return nil
	}
	return d.ground.ports.publish(at, v6only)
}

// Resolve implements broker.Handler. As a C library does, it looks into the
// laptop's hosts file first.
func (d desk) Resolve(ctx context.Context, query []byte) []byte {
	if text, err := os.ReadFile(hostsFile); err == nil {
		if reply := dnsproxy.ParseHosts(text).Answer(query); reply != nil {
			return reply
		}
	}
	return d.session().dns.Answer(ctx, query, false)
}
