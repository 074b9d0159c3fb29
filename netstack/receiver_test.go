package netstack_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// TestReceiveUDP checks that a Receiver gets the answers to datagrams that passed its stack by, and ICMP errors
// about them, and nothing from others or after its end.
func TestReceiveUDP(t *testing.T) {
	for name, tt := range map[string]struct {
		local  netip.Addr
		remote netip.AddrPort
	}{"ipv4": {client4, port(foreign4, 53)}, "ipv6": {client6, port(foreign6, 53)}} {
		t.Run(name, func(t *testing.T) {
			a, b := netstacktest.Pair(t, clientConfig, serverConfig)
			b.ForwardUDP(func(f flow.Flow, payload []byte) {
				var err error
				if string(payload) == "refuse" {
					err = b.SendUnreachable(f, syscall.ECONNREFUSED)
				} else {
					stranger := netip.AddrPortFrom(f.Dst.Addr(), 54)
					err = errors.Join(b.SendUDP(stranger, f.Src, payload), b.SendUDP(f.Dst, f.Src, payload))
				}
				if err != nil {
					t.Error(err)
				}
			})
			type event struct {
				payload []byte
				err     error
			}
			events := make(chan event, 8)
			r, err := a.ReceiveUDP(tt.local, tt.remote, func(payload []byte, err error) { events <- event{bytes.Clone(payload), err} })
			if err != nil {
				t.Fatal(err)
			}
			next := func(payload []byte) event {
				t.Helper()
				b.Deliver(netstack.AppendUDP(nil, r.Local, tt.remote, payload))
				select {
				case e := <-events:
					return e
				case <-time.After(30 * time.Second):
					t.Fatal("nothing comes back")
				}
				return event{}
			}
			for _, want := range []string{"", "odd", "even", strings.Repeat("long", 1000)} {
				if e := next([]byte(want)); e.err != nil || string(e.payload) != want {
					t.Fatalf("got %q, %v, want %q", e.payload, e.err, want)
				}
			}
			if e := next([]byte("refuse")); !errors.Is(e.err, syscall.ECONNREFUSED) {
				t.Errorf("got %+v, want a refusal", e)
			}
			other, err := a.ReceiveUDP(tt.local, tt.remote, func([]byte, error) { t.Error("another one's datagram") })
			if err != nil || other.Local == r.Local {
				t.Fatalf("%v, %v: want another port than %v", other, err, r.Local)
			}
			r.Close()
			r.Close()
			other.Close()
			if len(events) != 0 {
				t.Errorf("%d datagrams too many", len(events))
			}
		})
	}
	a, _ := netstacktest.Pair(t, clientConfig, serverConfig)
	if _, err := a.ReceiveUDP(foreign4, port(foreign4, 53), nil); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("of another host: %v", err)
	}
	a.Close()
	if _, err := a.ReceiveUDP(client4, port(foreign4, 53), nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestAppendUDP checks the checksums, which a stack does not: those of all payloads of two bytes, one of which has the sum that
// stands for none.
func TestAppendUDP(t *testing.T) {
	for name, tt := range map[string]struct {
		src, dst netip.AddrPort
		ip       int // length of the header
	}{"ipv4": {port(client4, 53), port(server4, 4000), 20}, "ipv6": {port(client6, 53), port(server6, 4000), 40}} {
		t.Run(name, func(t *testing.T) {
			var b []byte
			for i := range 1 << 16 {
				b = netstack.AppendUDP(b[:0], tt.src, tt.dst, []byte{byte(i >> 8), byte(i)})
				p, err := flow.Parse(b)
				if want := (flow.Flow{Proto: flow.UDP, Src: tt.src, Dst: tt.dst}); err != nil || p.Flow != want || len(b) != tt.ip+8+2 {
					t.Fatalf("%d bytes, %v, %v, want %v", len(b), p.Flow, err, want)
				}
				udp := b[tt.ip:]
				pseudo := slices.Concat(tt.src.Addr().AsSlice(), tt.dst.Addr().AsSlice(), []byte{0, 17, 0, byte(len(udp))})
				if sum := onesSum(slices.Concat(pseudo, udp)); sum != 0xffff || udp[6] == 0 && udp[7] == 0 {
					t.Fatalf("payload %#x has the checksum %x: sum %#x", i, udp[6:8], sum)
				}
				if sum := onesSum(b[:tt.ip]); tt.dst.Addr().Is4() && sum != 0xffff {
					t.Fatalf("payload %#x: sum %#x of the header", i, sum)
				}
			}
		})
	}
}

// onesSum adds up b, of even length, as the Internet checksum does.
func onesSum(b []byte) uint32 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}
