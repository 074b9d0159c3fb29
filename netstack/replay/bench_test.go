package replay

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
)

// packetsOf collects the packets of a conversation.
func packetsOf(play func(c *mirrortest.Conversation)) []mirror.Packet {
	var out []mirror.Packet
	play(mirrortest.New(client, server, func(p mirror.Packet) { out = append(out, p) }))
	return out
}

// BenchmarkUpload replays one upload in segments of 64 KiB over a loopback connection.
func BenchmarkUpload(b *testing.B) {
	const size = 64 << 20
	packets := packetsOf(func(c *mirrortest.Conversation) {
		c.Open()
		c.Ask(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size))
		piece := strings.Repeat("x", 1<<15)
		for range size / len(piece) {
			c.Ask(piece)
		}
		c.Close()
	})
	b.SetBytes(size)
	benchmark(b, packets, 1)
}

// BenchmarkRequests replays small requests of one connection; an operation is one.
func BenchmarkRequests(b *testing.B) {
	packets := packetsOf(func(c *mirrortest.Conversation) {
		c.Open()
		for range b.N {
			c.Ask(get)
			c.Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		c.Close()
	})
	benchmark(b, packets, b.N)
}

func benchmark(b *testing.B, packets []mirror.Packet, requests int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	p := &program{ln: ln}
	defer ln.Close()
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				answering(c.(*net.TCPConn), bufio.NewReaderSize(c, 64<<10))
			}()
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N / requests {
		r, err := New(Config{Ports: map[uint16]uint16{server.Port(): 1}, Servers: []netip.Addr{server.Addr()}, Dial: p.dial, Wait: true})
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range packets {
			r.Packet(p)
		}
		if err := r.Drain(b.Context()); err != nil {
			b.Fatal(err)
		}
		if s := r.Stats(); s.Requests.Delivered != uint64(requests) {
			b.Fatalf("%+v", s)
		}
		r.Close()
	}
}
