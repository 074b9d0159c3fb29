package session

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook/broker"
)

// hostsFile names hosts on the laptop itself.
const hostsFile = "/etc/hosts"

// serveBroker serves the preload library in programs of the session.
func (s *Session) serveBroker(o *Opener) error {
	name := socketName()
	ln, err := o.Dir.Listen(name)
	if err != nil {
		return fmt.Errorf("serve programs: %w", err)
	}
	s.broker = o.Dir.Path(name)
	ctx, cancel := context.WithCancel(s.ctx)
	server := &broker.Server{Listener: ln, Handler: desk{&exchange{s}}, Logger: s.log}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }() // ends with ctx
	s.onClose(func() error {
		cancel()
		return <-done
	})
	return nil
}

// desk answers the preload library. It implements broker.Handler.
type desk struct{ *exchange }

// Publish implements broker.Handler: in a session without a namespace listeners are
// the laptop's own.
func (d desk) Publish(_ context.Context, at netip.AddrPort, v6only bool) error {
	if d.session.ports == nil {
		return nil
	}
	return d.session.ports.publish(at, v6only)
}

// Resolve implements broker.Handler. As a C library does, it looks into the
// laptop's hosts file first.
func (d desk) Resolve(ctx context.Context, query []byte) []byte {
	if text, err := os.ReadFile(hostsFile); err == nil {
		if reply := dnsproxy.ParseHosts(text).Answer(query); reply != nil {
			return reply
		}
	}
	return d.session.dns.Answer(ctx, query, false)
}
