package dnsproxy

import (
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// mailbox is a nameserver whose answers come when the test lets them: datagrams are delivered by the goroutine that calls deliver.
type mailbox struct {
	receive func([]byte, error)

	mu    sync.Mutex
	asked []*dns.Msg
}

func (m *mailbox) open(_ netip.AddrPort, receive func([]byte, error)) (io.WriteCloser, error) {
	m.receive = receive
	return m, nil
}

func (m *mailbox) Write(b []byte) (int, error) {
	q := new(dns.Msg)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, q)
	return len(b), q.Unpack(b)
}

func (*mailbox) Close() error { return nil }

// deliver answers the oldest question with records, or rcode.
func (m *mailbox) deliver(t *testing.T, rcode int, records ...string) {
	t.Helper()
	m.mu.Lock()
	if len(m.asked) == 0 {
		t.Fatal("nothing was asked")
	}
	q := m.asked[0]
	m.asked = m.asked[1:]
	m.mu.Unlock()
	reply := new(dns.Msg).SetRcode(q, rcode)
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		reply.Answer = append(reply.Answer, rr)
	}
	wire, err := reply.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m.receive(wire, nil)
}

// begin hands a question to p and returns where its reply will be.
func begin(t *testing.T, p *Proxy, m *dns.Msg) <-chan *dns.Msg {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	replies := make(chan *dns.Msg, 2)
	if !p.Serve(wire, func(b []byte) {
		reply := new(dns.Msg)
		if err := reply.Unpack(b); err != nil || reply.Id != m.Id {
			t.Errorf("reply %v: %v", reply, err)
		}
		replies <- reply
	}) {
		t.Fatal("dropped")
	}
	clear(wire) // it is ours again
	return replies
}

// TestServe checks that no other goroutine is needed: a question leaves before Serve returns, and its reply is there when its
// answer is delivered.
func TestServe(t *testing.T) {
	box := &mailbox{}
	p := New(Config{Pod: podConf(), Datagrams: box.open, Timeout: time.Minute}) // nothing is asked again on a busy machine
	defer p.Close()
	const name = "orders.shop.svc.cluster.local."
	first, second := begin(t, p, question(name, dns.TypeA)), begin(t, p, question(name, dns.TypeA))
	if len(box.asked) != 1 || len(first)+len(second) != 0 {
		t.Fatalf("%d questions, %d and %d replies", len(box.asked), len(first), len(second))
	}
	box.deliver(t, dns.RcodeSuccess, name+" 600 IN A 192.0.2.1")
	for i, replies := range []<-chan *dns.Msg{first, second, begin(t, p, question(name, dns.TypeA)), begin(t, p, question("orders.", dns.TypeA))} {
		if len(replies) != 1 {
			t.Fatalf("query %d: %d replies", i, len(replies))
		}
		if reply := <-replies; len(reply.Answer) == 0 {
			t.Errorf("query %d: got %v", i, reply)
		}
	}
	if len(box.asked) != 0 {
		t.Errorf("asked: %v", box.asked)
	}

	// A search whose later names are asked when the earlier ones have turned out not to be.
	outside := begin(t, p, question("www.example.org.", dns.TypeA))
	for range 3 {
		box.deliver(t, dns.RcodeNameError)
	}
	if len(outside) != 0 || len(box.asked) != 1 {
		t.Fatalf("%d replies, asked %v", len(outside), box.asked)
	}
	box.deliver(t, dns.RcodeSuccess, "www.example.org. 5 IN A 192.0.2.2")
	if len(outside) != 1 || len((<-outside).Answer) != 1 {
		t.Error("no answer from outside")
	}
	if got := p.Stats(); got.Queries != 5 || got.Answered != 5 || got.Cached != 2 || got.Coalesced != 1 {
		t.Errorf("stats %+v", got)
	}
	if p.Serve([]byte("too short"), func([]byte) { t.Error("a reply to no query") }) {
		t.Error("what is no query is not dropped")
	}
}

// TestServeInTime checks that a search of several steps ends with its time, not with that of its last step, and once.
func TestServeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &mailbox{}
		p := New(Config{Pod: podConf(), Datagrams: box.open})
		defer p.Close()
		start := time.Now()
		replies := begin(t, p, question("www.example.org.", dns.TypeA))
		time.Sleep(1900 * time.Millisecond)
		for range 3 {
			box.deliver(t, dns.RcodeNameError)
		}
		if reply, took := <-replies, time.Since(start); reply.Rcode != dns.RcodeServerFailure || took != p.timeout {
			t.Errorf("after %v, want %v: %v", took, p.timeout, reply)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(replies) != 0 {
			t.Errorf("another reply: %v", <-replies)
		}
	})
}

// TestServeEnds checks that Close answers what is under way, and that nothing is taken after it.
func TestServeEnds(t *testing.T) {
	box := &mailbox{}
	p := New(Config{Pod: podConf(), Datagrams: box.open})
	replies := begin(t, p, question("orders.", dns.TypeA))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if len(replies) != 1 || (<-replies).Rcode != dns.RcodeServerFailure {
		t.Error("no SERVFAIL")
	}
	if p.Serve(make([]byte, 12), func([]byte) {}) {
		t.Error("a query is taken after Close")
	}
}
