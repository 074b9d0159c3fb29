package session

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/netstacktest"
	"github.com/borrownet/borrownet/netstack/router"
)

// TestLocalFlowsOutliveALoss: a session that has lost its pod resets what went there, and nothing else: programs and
// containers, which have the same address, go on with the laptop's network.
func TestLocalFlowsOutliveALoss(t *testing.T) {
	pod, near := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddrPort("203.0.113.9:5432")
	log := slog.New(slog.DiscardHandler)
	stack := netstacktest.New(t, netstack.Config{Name: "client", Addrs: []netip.Addr{wire.ClientAddr}, Transparent: true, Loopback: true})
	served := make(chan *netstack.TCPConn, 1)
	stack.ForwardTCP(1, func(r *netstack.TCPRequest) {
		if c, err := r.Accept(); err == nil {
			served <- c
		}
	})
	f := newFabric(router.New(router.Config{
		Session: []netip.Addr{pod}, Client: wire.ClientAddr, Agent: wire.AgentAddr, Local: []netip.Prefix{netip.PrefixFrom(near.Addr(), 24)},
	}), stack, log)
	programs := map[string]*netstack.Stack{
		"container": netstacktest.New(t, netstack.Config{Name: "container", Addrs: []netip.Addr{pod}}),
		"program":   netstacktest.New(t, netstack.Config{Name: "program", Addrs: []netip.Addr{pod}}),
	}
	f.pumpStack()
	f.open(kernel{programs["program"]})
	f.openContainer(kernel{programs["container"]})
	t.Cleanup(func() {
		f.queue.close()
		stack.Close()
		for _, p := range programs {
			p.Close()
		}
		f.wg.Wait()
	})

	port := uint16(40000) // the programs have one address, and no kernel between them
	dial := func(t *testing.T, name string) (client, server net.Conn) {
		t.Helper()
		port++
		c, err := programs[name].DialTCP(t.Context(), netip.AddrPortFrom(pod, port), near)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-served:
			return c, s
		case <-time.After(30 * time.Second):
			t.Fatal("nobody has accepted")
			return nil, nil
		}
	}
	say := func(t *testing.T, from, to net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(from, text); err != nil {
			t.Errorf("send %q: %v", text, err)
		}
		buf := make([]byte, len(text))
		to.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.ReadFull(to, buf); err != nil || string(buf) != text {
			t.Errorf("got %q, %v, want %q", buf, err, text)
		}
	}
	client, server := map[string]net.Conn{}, map[string]net.Conn{}
	for name := range programs {
		client[name], server[name] = dial(t, name)
	}
	f.lose()
	for name := range programs {
		t.Run(name, func(t *testing.T) {
			say(t, server[name], client[name], "before the loss")
			c, s := dial(t, name)
			say(t, s, c, "after the loss")
			say(t, c, s, "the other way")
		})
	}
}
