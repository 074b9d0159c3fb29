package agent_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/wg"
)

// TestDirectPort asks for the UDP port: only an agent that was started for that opens one, on an address of the pod alone,
// and closes it at the end of the session.
func TestDirectPort(t *testing.T) {
	opened := make(chan *net.UDPConn, 2)
	listen := func(addr netip.Addr) (net.PacketConn, error) {
		if addr != podIP {
			t.Errorf("a socket on %v", addr)
		}
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		opened <- c
		return c, err
	}
	ask := func(c *agenttest.Client, addr string) (code int, open wire.Direct, text string) {
		t.Helper()
		resp, err := c.HTTP.Post("http://"+wire.AgentAddr.String()+wire.PathDirect+"?addr="+addr, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			var d wire.Direct
			if err := wire.Decode(resp.Body, &d); err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, d, ""
		}
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, wire.Direct{}, string(b)
	}
	start := func(listen func(netip.Addr) (net.PacketConn, error)) (connect func() *agenttest.Client) {
		key := wg.NewPrivateKey()
		a := agenttest.Start(t, agent.Config{ClientKey: key.Public(), Network: newWorld(), Direct: listen})
		return func() *agenttest.Client { return agenttest.Connect(t, a, key, podIP) }
	}
	closed := func(c *net.UDPConn) bool {
		_, err := c.WriteToUDPAddrPort(nil, netip.MustParseAddrPort("127.0.0.1:9"))
		return errors.Is(err, net.ErrClosed)
	}

	if code, _, text := ask(start(nil)(), podIP.String()); code != http.StatusForbidden || !strings.Contains(text, wire.DirectFlag) {
		t.Errorf("an agent that may not: %d %q", code, text)
	}
	connect := start(listen)
	c := connect()
	for _, addr := range []string{"192.0.2.99", "127.0.0.1", "0.0.0.0", "x"} {
		if code, _, _ := ask(c, addr); code == http.StatusOK {
			t.Errorf("a port on %s", addr)
		}
	}
	code, open, text := ask(c, podIP.String())
	conn := <-opened
	if want := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port(); code != http.StatusOK || open.Port != want || len(open.Certificate) != sha256.Size {
		t.Fatalf("%d, %+v, %s; want port %d", code, open, text, want)
	}
	if _, again, _ := ask(c, podIP.String()); !reflect.DeepEqual(again, open) || len(opened) != 0 {
		t.Errorf("asked twice there are %+v and %+v", open, again)
	}
	connect() // takes the place of the first session
	for end := time.Now().Add(time.Minute); !closed(conn); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the port outlives its use")
		}
	}
}
