package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/agent/capture"
	"github.com/borrownet/borrownet/netstack/flow"
	netmirror "github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
	"github.com/borrownet/borrownet/netstack/relay"
	"github.com/borrownet/borrownet/netstack/replay"
)

// uploader is a client of a mirrored pod that sends one request after the other, in pieces.
type uploader struct {
	*mirrortest.Conversation
	*rand.Rand
	said []byte // on the connection at hand
	rest string // of the request at hand
	sum  int    // what was said
	dark bool   // nothing of the connection at hand is in the capture
}

// connect opens a connection, of which the capture may not have the first packets.
func (u *uploader) connect() {
	u.said, u.dark = nil, false
	u.Client += u.Uint32() >> 2 // another connection of the same ports
	switch u.IntN(5) {
	case 0:
		u.Client++
		u.FromServer(flow.SYN|flow.ACK, "")
		u.FromClient(flow.ACK, "")
	case 1:
		u.FromClient(flow.SYN, "")
		u.Server++
		u.FromClient(flow.ACK, "")
	case 2:
		u.Client++
		u.Server += u.Uint32() >> 2
		u.dark = true
	default:
		u.Open()
	}
}

// step sends a piece of a request, which the capture may not have, or something again; behind the last one is the answer.
func (u *uploader) step() {
	if u.rest == "" {
		body := strings.Repeat("x", u.IntN(30_000))
		u.rest = fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	piece := u.rest[:min(len(u.rest), 1+u.IntN(8000))]
	u.rest = u.rest[len(piece):]
	u.said = append(u.said, piece...)
	u.sum += len(piece)
	if !u.dark && u.IntN(20) == 0 {
		u.Client += uint32(len(piece)) // the kernel drops it
	} else {
		u.FromClient(flow.ACK|flow.PSH, piece)
		u.dark = false
	}
	if u.IntN(4) == 0 {
		u.again()
	}
	if u.IntN(2) == 0 {
		u.FromServer(flow.ACK, "")
	}
	if u.rest == "" {
		u.FromServer(flow.ACK, "")
		u.Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if u.IntN(10) == 0 {
			u.Close()
			u.connect()
		}
	}
}

// again sends once more some of what was sent.
func (u *uploader) again() {
	all, next := u.said, u.Client
	from := len(all) - u.IntN(min(len(all), 20_000)) - 1
	u.Client -= uint32(len(all) - from)
	u.FromClient(flow.ACK, string(all[from:min(len(all), from+1+u.IntN(8000))]))
	u.Client = next
}

// TestMirrorAccounts: while clients upload more than the agent can keep, send some of it again, come back by the same ports,
// and the kernel drops some, what the agent says to be lost and what is replayed, skipped or missing here are all that they have sent, to the byte.
func TestMirrorAccounts(t *testing.T) {
	pod := netip.MustParseAddrPort("192.0.2.10:8080")
	for seed := range uint64(8) {
		r, err := replay.New(replay.Config{
			Ports: map[uint16]uint16{pod.Port(): 3000}, Servers: []netip.Addr{pod.Addr()},
			Dial: func(context.Context, replay.Call) (relay.Conn, error) { return nil, errors.New("no program listens") },
		})
		if err != nil {
			t.Fatal(err)
		}
		q := capture.NewQueue(capture.Spec{Pod: []uint16{pod.Port()}, Addrs: []netip.Addr{pod.Addr()}}, 64<<10)
		push := func(p netmirror.Packet) {
			q.Push(capture.Packet{Time: p.Time, Iface: capture.Pod, Data: p.Data, Wire: p.Wire})
		}
		drain := func() {
			q.Flush()
			for rec, ok := q.Pop(); ok; rec, ok = q.Pop() {
				if rec.Data != nil {
					r.Packet(netmirror.Packet{Time: rec.Time, Data: rec.Data, Wire: rec.Wire})
				} else {
					r.Lost(netmirror.Lost{Flow: flow.Flow{Proto: flow.TCP, Src: rec.Client, Dst: rec.Server}, Packets: rec.Loss.Packets, Bytes: rec.Loss.Bytes})
				}
			}
		}
		random := rand.New(rand.NewPCG(seed, 3))
		var clients []*uploader
		for i := range uint16(8) {
			u := &uploader{Conversation: mirrortest.New(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.7"), 40000+i), pod, push), Rand: random}
			u.connect()
			clients = append(clients, u)
		}
		for range 2000 {
			clients[random.IntN(len(clients))].step()
			if random.IntN(15) == 0 {
				drain()
			}
		}
		sent := 0
		for _, c := range clients {
			sent += c.sum
			c.Close()
		}
		drain()
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := r.Stats()
		gaps := uint64(0)
		for _, n := range s.GapBytes {
			gaps += n
		}
		if got := s.RequestBytes + s.Skipped + gaps + s.LostBytes; got != uint64(sent) {
			t.Errorf("seed %d: %d bytes of requests, %d skipped, %d missing and %d lost are %d; %d were sent", seed, s.RequestBytes, s.Skipped, gaps, s.LostBytes, got, sent)
		}
		if s.LostBytes == 0 || s.RequestBytes == 0 || gaps == 0 || s.Requests.Refused == 0 {
			t.Errorf("seed %d: the test shows nothing: %+v", seed, s)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
