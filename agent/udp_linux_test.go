package agent

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// TestTrySend checks that a datagram that is sent without waiting arrives, also after an earlier one was refused.
func TestTrySend(t *testing.T) {
	for name, loopback := range map[string]string{"ipv4": "127.0.0.1:0", "ipv6": "[::1]:0"} {
		t.Run(name, func(t *testing.T) {
			listen := func() (*net.UDPConn, netip.AddrPort) {
				c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(loopback)))
				if err != nil {
					t.Skipf("needs %s: %v", name, err)
				}
				return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
			}
			there, addr := listen()
			defer there.Close()
			gone, refused := listen()
			gone.Close()
			d, err := Kernel{}.ListenUDP(addr.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			u := d.(*kernelUDP)
			for i, dst := range []netip.AddrPort{addr, refused, addr} {
				if sent, err := u.TrySend([]byte{byte(i)}, dst); !sent || err != nil {
					t.Fatalf("datagram %d to %v: sent %v, %v", i, dst, sent, err)
				}
			}
			if err := there.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 8)
			for _, want := range []byte{0, 2} {
				if n, err := there.Read(buf); err != nil || n != 1 || buf[0] != want {
					t.Errorf("got %d, %v, want datagram %d", buf[:n], err, want)
				}
			}
			d.Close()
			if sent, err := u.TrySend([]byte{3}, addr); sent || !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: sent %v, %v", sent, err)
			}
		})
	}
}

// fullSocket has no room for TrySend when it is told so.
type fullSocket struct {
	Datagrams
	full bool
	got  []string
}

func (s *fullSocket) TrySend(payload []byte, _ netip.AddrPort) (bool, error) {
	if s.full {
		return false, nil
	}
	s.got = append(s.got, string(payload))
	return true, nil
}

// TestDatagramsKeepTheirOrder checks that nothing is sent at once while something waits for its turn.
func TestDatagramsKeepTheirOrder(t *testing.T) {
	s := &session{agent: &Agent{counters: newCounters()}}
	socket := &fullSocket{}
	e := &natEntry[Datagrams]{socket: socket, queue: make(chan outbound, queueLen), done: make(chan struct{})}
	f := flow.Flow{Proto: flow.UDP}
	send := func(payload string) {
		if !s.sendNow(e, f, []byte(payload)) {
			e.enqueue(outbound{payload: []byte(payload)})
		}
	}
	send("1")
	socket.full = true
	send("2")
	socket.full = false
	send("3")
	e.sendAll(time.Minute, func(out outbound) {
		socket.got = append(socket.got, string(out.payload))
		if len(socket.got) == 3 {
			close(e.done)
		}
	})
	send("4")
	if want := []string{"1", "2", "3", "4"}; !slices.Equal(socket.got, want) {
		t.Errorf("got %q, want %q", socket.got, want)
	}
}
