package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/relay"
)

// Way is how something that is no program of a session reaches a host as one would.
type Way struct {
	// Socket is that of a switchboard which opens flows from the pod.
	Socket string `json:"socket"`
	// Addrs are the host's addresses, as the pod resolves it; the first that works is
	// to be used.
	Addrs []netip.Addr `json:"addrs"`
	// Pod names what the flows come from, for people.
	Pod string `json:"pod"`
}

// Way resolves host for forwards and proxies.
func (s *Session) Way(ctx context.Context, host string) (Way, error) {
	s = s.now.Load()
	w := Way{Socket: s.board, Pod: s.target.Namespace + "/" + s.target.Pod}
	if s.hook.Relayed() {
		w.Socket = s.socket
	}
	if host == "" { // nobody in particular
		return w, nil
	}
	addrs, err := s.dns.LookupHost(ctx, host)
	if none, ok := errors.AsType[*net.DNSError](err); ok {
		return w, &fault.Error{Code: fault.Target, ID: "BN1107", Op: "find", Object: host, Reason: none.Err, Err: err, Hint: "borrownet explain dns " + host + " --session " + s.name}
	}
	if err != nil {
		return w, &fault.Error{Code: fault.NoDataPath, Op: "find", Object: host, Reason: err.Error(), Err: err, Hint: "borrownet status " + s.name}
	}
	w.Addrs = addrs
	return w, nil
}

// openRemote connects to a port of the pod's loopback if dst is one that the
// session was set up for; else it returns nil and no error.
func (s *Session) openRemote(dst netip.AddrPort) (relay.Conn, error) {
	if !dst.Addr().IsLoopback() || !slices.Contains(s.req.RemoteLocalhost, dst.Port()) {
		return nil, nil
	}
	return s.locals.dialRemote(dst.Port())
}

// carryTo carries a flow between pod and the far end that will come.
func (g *guarded) carryTo(pod relay.Conn) func(context.Context, *net.TCPConn) {
	return func(ctx context.Context, c *net.TCPConn) {
		if c == nil {
			pod.Close()
			return
		}
		g.copy(ctx, c, pod)
	}
}
