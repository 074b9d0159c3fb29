package netstack_test

import (
	"io"
	"net/netip"
	"testing"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// benchmarkThroughput moves b.N chunks through conns conns of a pair of stacks.
func benchmarkThroughput(b *testing.B, mtu, conns int) {
	near, far := clientConfig, serverConfig
	near.MTU, far.MTU = mtu, mtu
	sa, sb := netstacktest.Pair(b, near, far)
	const chunk = 128 << 10
	done := make(chan error, conns)
	var senders []*netstack.TCPConn
	for i := range conns {
		c1, c2 := connect(b, sa, sb, port(server4, uint16(80+i)))
		senders = append(senders, c1)
		go func() {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c2}, make([]byte, chunk))
			done <- err
		}()
	}
	buf := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range conns {
		n := b.N / conns
		if i == 0 {
			n += b.N % conns
		}
		go func() {
			for range n {
				if _, err := senders[i].Write(buf); err != nil {
					b.Error(err)
				}
			}
			senders[i].CloseWrite()
		}()
	}
	for range conns {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	st := sa.Stats()
	b.ReportMetric(float64(st.TCPRetransmits), "retransmits")
}

func BenchmarkThroughput(b *testing.B) {
	b.Run("mtu65440-1", func(b *testing.B) { benchmarkThroughput(b, 65440, 1) })
	b.Run("mtu65440-16", func(b *testing.B) { benchmarkThroughput(b, 65440, 16) })
	b.Run("mtu1420-1", func(b *testing.B) { benchmarkThroughput(b, 1420, 1) })
}

func BenchmarkRoundTrip(b *testing.B) {
	sa, sb := netstacktest.Pair(b, clientConfig, serverConfig)
	c1, c2 := connect(b, sa, sb, port(server4, 80))
	go io.Copy(c2, c2)
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c1.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c1, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConnect(b *testing.B) {
	sa, sb := netstacktest.Pair(b, clientConfig, serverConfig)
	sb.ForwardTCP(64, func(r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			b.Error(err)
			return
		}
		io.Copy(c, c)
		c.Close()
	})
	buf := make([]byte, 1)
	ctx := b.Context()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		// Ports of the client return only after TIME_WAIT.
		i++
		c, err := sa.DialTCP(ctx, netip.AddrPort{}, port(foreign4, uint16(1+i%60000)))
		if err != nil {
			b.Fatal(err)
		}
		c.Write(buf)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
		c.Reset()
	}
}
