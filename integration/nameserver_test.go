package integration

import (
	"net"
	"slices"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A nameserver has one address for every name, and notes the names that it is asked for.
type nameserver struct {
	addr [4]byte

	mu    sync.Mutex
	names []string // with a dot at the end, guarded by mu
}

// answerAll answers on pc with addr until the test ends.
func answerAll(t *testing.T, pc net.PacketConn, addr [4]byte) *nameserver {
	t.Helper()
	n := &nameserver{addr: addr}
	served := make(chan struct{})
	go func() { // until pc is closed
		defer close(served)
		n.serve(pc)
	}()
	t.Cleanup(func() { pc.Close(); <-served })
	return n
}

func (n *nameserver) serve(pc net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		size, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:size]); err != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		n.mu.Lock()
		n.names = append(n.names, q.Name.String())
		n.mu.Unlock()
		// The additional section stays as it is: who speaks EDNS is answered so.
		m.Response, m.RecursionAvailable = true, true
		if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5},
				Body:   &dnsmessage.AResource{A: n.addr},
			}}
		}
		if reply, err := m.Pack(); err == nil {
			_, _ = pc.WriteTo(reply, from)
		}
	}
}

// asked returns the names since the last forget, in order and each once.
func (n *nameserver) asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := slices.Clone(n.names)
	slices.Sort(names)
	return slices.Compact(names)
}

func (n *nameserver) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names = nil
}
