package session

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/dnsproxy"
)

const (
	// resolvConf is the laptop's resolver configuration.
	resolvConf = "/etc/resolv.conf"
	// confPause is the time between two looks at whether it has changed.
	confPause = time.Second
	// maxNameservers bounds the addresses that a session takes for the laptop's nameservers.
	maxNameservers = 32

	dnsPort = 53
)

// stubs are where systemd-resolved listens, also when resolv.conf names the servers behind it.
var stubs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 53}), netip.AddrFrom4([4]byte{127, 0, 0, 54})}

// nameservers are the laptop's: programs of the session ask them, and the DNS proxy answers in their place. A laptop
// changes networks, and resolv.conf with them; programs read it when they like, so an address that was a nameserver's
// stays one.
type nameservers struct {
	path string
	log  *slog.Logger

	mu      sync.RWMutex
	info    os.FileInfo // of the file as it was read, nil before
	current dnsproxy.ResolvConf
	seen    []netip.Addr // without zones, the stubs first, then the latest last
}

// newNameservers reads the resolv.conf at path.
func newNameservers(path string, log *slog.Logger) *nameservers {
	n := &nameservers{path: path, log: log, seen: slices.Clone(stubs)}
	if !n.read() {
		rc, _ := dnsproxy.ParseResolvConf(strings.NewReader("")) // what resolvers assume without one
		n.take(rc)
	}
	return n
}

// read takes the file's content if that has changed, and reports whether it has.
func (n *nameservers) read() bool {
	f, err := os.Open(n.path)
	if err != nil {
		n.log.Debug("the laptop has no resolver", "err", err)
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		n.log.Debug("the laptop's resolver is unknown", "err", err)
		return false
	}
	n.mu.RLock()
	was := n.info
	n.mu.RUnlock()
	if was != nil && os.SameFile(was, info) && was.ModTime().Equal(info.ModTime()) && was.Size() == info.Size() {
		return false
	}
	rc, err := dnsproxy.ParseResolvConf(f)
	if err != nil {
		n.log.Warn("the laptop's resolver is unknown", "err", err)
		return false
	}
	n.take(rc)
	n.mu.Lock()
	n.info = info
	n.mu.Unlock()
	return true
}

func (n *nameservers) take(rc dnsproxy.ResolvConf) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.current = rc
	for _, a := range rc.Nameservers {
		a = a.Unmap().WithZone("")
		if i := slices.Index(n.seen[len(stubs):], a); i >= 0 {
			n.seen = slices.Delete(n.seen, len(stubs)+i, len(stubs)+i+1)
		}
		if !slices.Contains(stubs, a) {
			n.seen = append(n.seen, a)
		}
	}
	if over := len(n.seen) - maxNameservers; over > 0 {
		n.seen = slices.Delete(n.seen, len(stubs), len(stubs)+over)
	}
}

// follow calls changed whenever the file has changed, until ctx ends.
func (n *nameservers) follow(ctx context.Context, changed func()) {
	tick := time.NewTicker(confPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if n.read() {
				n.log.Info("the laptop's resolver has changed", "upstream", n.addrs())
				changed()
			}
		}
	}
}

// addrs returns the addresses that programs may ask.
func (n *nameservers) addrs() []netip.Addr {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Clone(n.seen)
}

// conf returns what the file says now.
func (n *nameservers) conf() dnsproxy.ResolvConf {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.current
}

// has reports whether programs may ask at addr.
func (n *nameservers) has(addr netip.AddrPort) bool {
	if addr.Port() != dnsPort {
		return false
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Contains(n.seen, addr.Addr().Unmap().WithZone(""))
}

// ExplainName resolves name as for a program, and says how.
func (s *Session) ExplainName(ctx context.Context, name, qtype string) (dnsproxy.Explanation, error) {
	e, err := s.now.Load().dns.Explain(ctx, name, qtype)
	if err != nil {
		return e, &fault.Error{Code: fault.Usage, Op: "explain", Object: name, Reason: err.Error(), Err: err,
			Hint: "borrownet explain dns orders --type A"}
	}
	return e, nil
}
