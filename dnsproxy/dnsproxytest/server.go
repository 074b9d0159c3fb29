// Package dnsproxytest provides nameservers in memory for tests.
//
// A Server answers from records in zone file syntax over connections that its Dial makes. It uses no sockets, so it
// works inside a testing/synctest bubble.
package dnsproxytest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/zone"
)

// Query is a question as a nameserver got it.
type Query struct {
	Server  netip.Addr
	Network string // "udp" or "tcp"
	Msg     *dns.Msg
}

// String returns q as "udp 192.0.2.53 orders.example.org. A".
func (q Query) String() string {
	name := "?"
	if len(q.Msg.Question) == 1 {
		name = q.Msg.Question[0].Name + " " + dns.TypeToString[q.Msg.Question[0].Qtype]
	}
	return fmt.Sprintf("%s %v %s", q.Network, q.Server, name)
}

// Server is any number of nameservers with the same records. It is safe for concurrent use.
type Server struct {
	zone *zone.Zone
	wg   sync.WaitGroup // one per connection

	mu     sync.Mutex
	handle func(q Query, reply *dns.Msg) []*dns.Msg
	asked  []string
	conns  map[net.Conn]struct{}
	closed bool
}

// New returns a Server that knows records, one per string in zone file syntax. Names in the zone of an SOA record get
// it in negative answers. The server ends with the test.
func New(tb testing.TB, records ...string) *Server {
	tb.Helper()
	z, err := zone.New(records...)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{zone: z, conns: make(map[net.Conn]struct{})}
	tb.Cleanup(s.Close)
	return s
}

// Close ends all connections and waits for them. Later dials are refused.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	s.wg.Wait()
}

// Handle makes f decide what is sent for a query instead of reply, the answer from the records: nothing, or several
// messages one after the other. f may block, and is called by several goroutines.
func (s *Server) Handle(f func(q Query, reply *dns.Msg) []*dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = f
}

// Asked returns the queries since the last call, as Query.String has them.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// Dial connects to the nameserver at addr; every address is one. It has the type of dnsproxy.Config.Dial.
func (s *Server) Dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	client, server := net.Pipe()
	s.conns[server] = struct{}{}
	s.wg.Go(func() { s.serve(server, network, addr.Addr()) })
	return client, nil
}

// serve answers what arrives on c, each query in a goroutine of its own, until either side closes it.
func (s *Server) serve(c net.Conn, network string, addr netip.Addr) {
	var answers sync.WaitGroup
	defer func() {
		c.Close()
		answers.Wait()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	var writing sync.Mutex
	for {
		m, err := read(c, network)
		if err != nil {
			return
		}
		q := Query{Server: addr, Network: network, Msg: m}
		reply := s.answer(q)
		answers.Go(func() {
			for _, m := range s.replies(q, reply) {
				writing.Lock()
				err := write(c, network, m)
				writing.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
}

// answer notes q and returns what the records say.
func (s *Server) answer(q Query) *dns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, q.String())
	return s.zone.Answer(q.Msg, q.Network)
}

// replies returns what is sent for q.
func (s *Server) replies(q Query, reply *dns.Msg) []*dns.Msg {
	s.mu.Lock()
	handle := s.handle
	s.mu.Unlock()
	if handle != nil {
		return handle(q, reply)
	}
	return []*dns.Msg{reply}
}
