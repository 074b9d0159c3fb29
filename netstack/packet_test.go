package netstack_test

import (
	"bytes"
	"testing"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
)

// TestDatagram checks that only whole, plain datagrams are taken past a stack.
func TestDatagram(t *testing.T) {
	plain4 := func() []byte {
		return netstack.AppendUDP(nil, port(client4, 5000), port(foreign4, 53), []byte("payload"))
	}
	plain6 := func() []byte {
		return netstack.AppendUDP(nil, port(client6, 5000), port(foreign6, 53), []byte("payload"))
	}
	with := func(pkt []byte, at int, b byte) []byte { pkt[at] = b; return pkt }
	for name, tt := range map[string]struct {
		pkt []byte
		ok  bool
	}{
		"ipv4":              {plain4(), true},
		"ipv6":              {plain6(), true},
		"no-payload":        {netstack.AppendUDP(nil, port(client4, 5000), port(foreign4, 53), nil), true},
		"bytes-behind":      {append(plain4(), 0, 0), true},
		"nothing":           {nil, false},
		"tcp":               {segment(client4, foreign4, 5000, 53, 2), false},
		"tcp-in-ipv6":       {with(plain6(), 6, byte(flow.TCP)), false},
		"options":           {with(plain4(), 0, 0x46), false},
		"extension":         {with(plain6(), 6, 0), false},
		"first-fragment":    {with(plain4(), 6, 0x20), false},
		"later-fragment":    {with(plain4(), 7, 1), false},
		"cut":               {plain4()[:30], false},
		"cut-ipv6":          {plain6()[:50], false},
		"length-too-long":   {with(plain4(), 25, 200), false},
		"length-too-short":  {with(plain4(), 25, 7), false},
		"header-cut":        {with(plain4(), 3, 24), false},
		"another-version":   {with(plain4(), 0, 0x55), false},
		"ip-length-too-low": {with(plain4(), 3, 19), false},
	} {
		t.Run(name, func(t *testing.T) {
			f, payload, ok := netstack.Datagram(tt.pkt)
			if ok != tt.ok {
				t.Fatalf("got %v, %q, %v", f, payload, ok)
			}
			if want, err := flow.Parse(tt.pkt); ok && (err != nil || f != want.Flow || !bytes.Equal(payload, want.Payload)) {
				t.Errorf("got %v, %q, want %v, %v", f, payload, want, err)
			}
		})
	}
}

// FuzzDatagram checks that what is taken past a stack is what everybody else takes the packet for.
func FuzzDatagram(f *testing.F) {
	f.Add(netstack.AppendUDP(nil, port(client4, 5000), port(foreign4, 53), []byte("payload")))
	f.Add(netstack.AppendUDP(nil, port(client6, 5000), port(foreign6, 53), nil))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		got, payload, ok := netstack.Datagram(pkt)
		if !ok {
			return
		}
		want, err := flow.Parse(pkt)
		if err != nil || want.Fragment || got != want.Flow || !bytes.Equal(payload, want.Payload) {
			t.Errorf("got %v, %q, want %+v, %v", got, payload, want, err)
		}
	})
}
