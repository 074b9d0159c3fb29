package zone_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/zone"
)

func newZone(t *testing.T) *zone.Zone {
	t.Helper()
	z, err := zone.New(
		"example.org. 30 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5",
		"orders.shop.example.org. 5 IN A 192.0.2.1",
		"orders.shop.example.org. 5 IN AAAA 2001:db8::1",
		"alias.example.org. 5 IN CNAME orders.shop.example.org.",
		"loop.example.org. 5 IN CNAME loop.example.org.",
		"*.wild.example.org. 5 IN A 192.0.2.2",
		`big.example.org. 5 IN TXT "`+strings.Repeat("x", 250)+`" "`+strings.Repeat("y", 250)+`" "`+strings.Repeat("z", 250)+`"`,
	)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestAnswer(t *testing.T) {
	z := newZone(t)
	for _, tt := range []struct {
		name           string
		question       string
		qtype          uint16
		rcode, answers int
		authority      int
	}{
		{"a", "orders.shop.example.org.", dns.TypeA, dns.RcodeSuccess, 1, 0},
		{"case", "ORDERS.shop.example.org.", dns.TypeAAAA, dns.RcodeSuccess, 1, 0},
		{"no-such-type", "orders.shop.example.org.", dns.TypeMX, dns.RcodeSuccess, 0, 1},
		{"empty-non-terminal", "shop.example.org.", dns.TypeA, dns.RcodeSuccess, 0, 1},
		{"no-such-name", "nobody.example.org.", dns.TypeA, dns.RcodeNameError, 0, 1},
		{"not-ours", "example.com.", dns.TypeA, dns.RcodeNameError, 0, 0},
		{"alias", "alias.example.org.", dns.TypeA, dns.RcodeSuccess, 2, 0},
		{"alias-no-such-type", "alias.example.org.", dns.TypeMX, dns.RcodeSuccess, 1, 1},
		{"loop-ends", "loop.example.org.", dns.TypeA, dns.RcodeSuccess, 8, 0},
		{"wildcard", "a.wild.example.org.", dns.TypeA, dns.RcodeSuccess, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := new(dns.Msg).SetQuestion(tt.question, tt.qtype)
			m := z.Answer(q, "tcp")
			if m.Rcode != tt.rcode || len(m.Answer) != tt.answers || len(m.Ns) != tt.authority || m.Id != q.Id {
				t.Errorf("answer %v", m)
			}
		})
	}
	if m := z.Answer(new(dns.Msg), "udp"); m.Rcode != dns.RcodeFormatError {
		t.Errorf("no question: %v", m)
	}
	if _, err := zone.New("not a record"); err == nil {
		t.Error("nonsense was taken for a record")
	}
}

// bothOnOnePort listens on the same free port over UDP and TCP.
func bothOnOnePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, ln
		}
		pc.Close() // somebody else's TCP port
	}
	t.Fatal("no port that is free for both")
	return nil, nil
}

func TestServe(t *testing.T) {
	pc, ln := bothOnOnePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- newZone(t).Serve(ctx, pc, ln) }()
	q := new(dns.Msg).SetQuestion("big.example.org.", dns.TypeTXT)
	udp := dns.Client{Net: "udp", Timeout: 30 * time.Second}
	m, _, err := udp.Exchange(q, pc.LocalAddr().String())
	if err != nil || !m.Truncated {
		t.Errorf("udp: %v, %v", m, err)
	}
	tcp := dns.Client{Net: "tcp", Timeout: 30 * time.Second}
	m, _, err = tcp.Exchange(q, ln.Addr().String())
	if err != nil || len(m.Answer) != 1 {
		t.Errorf("tcp: %v, %v", m, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, _, err := tcp.Exchange(q, ln.Addr().String()); err == nil {
		t.Error("it still answers")
	}
}
