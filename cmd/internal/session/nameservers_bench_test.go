package session

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/netstacktest"
	"github.com/borrownet/borrownet/netstack/router"
)

// kernel is a network stack in the place of the namespace's.
type kernel struct{ *netstack.Stack }

func (k kernel) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	return k.ReadPackets(bufs, sizes, offset)
}

func (k kernel) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		k.Deliver(b[offset:])
	}
	return len(bufs), nil
}

func (kernel) BatchSize() int { return packetBatch }

// BenchmarkQuery measures a query's way from the session's device through router, stack and DNS proxy and back, one at a
// time and with many under way. Half of the work is that of the program's own stack.
func BenchmarkQuery(b *testing.B) {
	pod, nameserver := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("203.0.113.53")
	log := slog.New(slog.DiscardHandler)
	stack := netstacktest.New(b, netstack.Config{Name: "client", Addrs: []netip.Addr{wire.ClientAddr}, Transparent: true, Loopback: true})
	program := netstacktest.New(b, netstack.Config{Name: "program", Addrs: []netip.Addr{pod}})
	n := newNameservers(filepath.Join(b.TempDir(), "none"), log)
	n.take(dnsproxy.ResolvConf{Nameservers: []netip.Addr{nameserver}})
	proxy := dnsproxy.New(dnsproxy.Config{
		Pod:  dnsproxy.ResolvConf{Nameservers: []netip.Addr{nameserver}, Search: []string{"shop.svc.cluster.local"}, Ndots: 5},
		Dial: dnsproxytest.New(b, "orders.shop.svc.cluster.local. 3600 IN A 192.0.2.1").Dial,
	})
	ctx, cancel := context.WithCancel(b.Context())
	l := &locals{ctx: ctx, stack: stack, nameservers: n, dns: proxy}
	l.udp = newUDPTable(stack, func(uint16) bool { return false }, nil)
	stack.ForwardUDP(l.forwardUDP)
	f := newFabric(router.New(router.Config{Session: []netip.Addr{pod}, Client: wire.ClientAddr, Agent: wire.AgentAddr, Nameservers: n.addrs()}), stack, log)
	l.sendUDP, f.answer = f.sendUDP, l.answer
	f.pumpStack()
	f.open(kernel{program})
	b.Cleanup(func() {
		program.Close()
		stack.Close()
		f.wg.Wait()
		proxy.Close()
		cancel()
		l.udp.wg.Wait()
	})
	query, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("orders.shop.svc.cluster.local."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}).Pack()
	if err != nil {
		b.Fatal(err)
	}
	for _, inFlight := range []int{1, 32} {
		b.Run(fmt.Sprintf("in-flight-%d", inFlight), func(b *testing.B) {
			c, err := program.DialUDP(netip.AddrPortFrom(pod, 0), netip.AddrPortFrom(nameserver, 53))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 512)
			b.ReportAllocs()
			for range inFlight {
				send(b, c, query)
			}
			for b.Loop() {
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
				send(b, c, query)
			}
			for range inFlight {
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func send(b *testing.B, c net.Conn, query []byte) {
	if _, err := c.Write(query); err != nil {
		b.Fatal(err)
	}
}
