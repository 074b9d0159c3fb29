package wg

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/borrownet/borrownet/netstack/link/linktest"
)

// source is a Packets that has a packet whenever asked, and throws away what it gets.
type source struct {
	packet []byte
	mu     sync.Mutex
	left   int // packets to give; guarded by mu
	more   chan struct{}
	got    chan int // how many packets each Write brought
	done   chan struct{}
	once   sync.Once
}

func newSource(packet []byte) *source {
	return &source{packet: packet, more: make(chan struct{}, 1), got: make(chan int, 1024), done: make(chan struct{})}
}

func (s *source) give(n int) {
	s.mu.Lock()
	s.left = n
	s.mu.Unlock()
	s.more <- struct{}{}
}

func (s *source) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		s.mu.Lock()
		n := min(s.left, len(bufs))
		s.left -= n
		s.mu.Unlock()
		if n > 0 {
			for i := range n {
				sizes[i] = copy(bufs[i][offset:], s.packet)
			}
			return n, nil
		}
		select {
		case <-s.more:
		case <-s.done:
			return 0, net.ErrClosed
		}
	}
}

func (s *source) Write(bufs [][]byte, offset int) (int, error) {
	select {
	case s.got <- len(bufs):
	case <-s.done:
		return 0, net.ErrClosed
	}
	return len(bufs), nil
}

func (s *source) BatchSize() int { return 8 }

func (s *source) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// BenchmarkTCP measures one direction of two Devices over a carrier on loopback TCP, in one process.
func BenchmarkTCP(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"64KiB", defaultMTU}, {"16KiB", 16000}, {"1400", 1400}} {
		b.Run(size.name, func(b *testing.B) {
			benchmark(b, linktest.TCPPairs(b), ipv4(size.bytes, 1))
		})
	}
}

func benchmark(b *testing.B, pair func() (client, agent io.ReadWriteCloser), packet []byte) {
	client, agent := newSource(packet), newSource(packet)
	tn := openOver(b, pair, client, agent)
	client.give(1)
	<-agent.got // the handshake is done
	b.SetBytes(int64(len(packet)))
	b.ReportAllocs()
	b.ResetTimer()
	client.give(b.N)
	for got := 0; got < b.N; {
		got += <-agent.got
	}
	b.StopTimer()
	tn.client.Close()
	tn.agent.Close()
}

// BenchmarkRoundTrip measures a small packet there and one back.
func BenchmarkRoundTrip(b *testing.B) {
	client, agent := newSource(ipv4(100, 1)), newSource(ipv4(100, 1))
	openOver(b, linktest.TCPPairs(b), client, agent)
	client.give(1)
	<-agent.got
	b.ResetTimer()
	for range b.N {
		client.give(1)
		<-agent.got
		agent.give(1)
		<-client.got
	}
}
