package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/link/linktest"
)

// linked returns two Links that run, joined by carriers of which kill ends the current one.
func linked(t testing.TB, pair func() (client, agent io.ReadWriteCloser)) (client, agent *Link, kill func()) {
	t.Helper()
	var mu sync.Mutex
	var cur io.Closer
	agent = New(Config{})
	client = New(Config{Dial: func(context.Context) (io.ReadWriteCloser, error) {
		c, a := pair()
		mu.Lock()
		cur = c
		mu.Unlock()
		agent.Attach(a)
		return c, nil
	}})
	var running sync.WaitGroup
	for _, l := range []*Link{client, agent} {
		running.Go(func() {
			if err := l.Run(context.Background()); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		client.Close()
		agent.Close()
		running.Wait()
	})
	return client, agent, func() {
		mu.Lock()
		defer mu.Unlock()
		if cur != nil {
			cur.Close()
		}
	}
}

func TestSendCoalesces(t *testing.T) {
	leaktest.Check(t)
	l := New(Config{})
	defer l.Close()
	near, far := net.Pipe()
	writes := make(chan int, 10)
	l.Attach(writeLogger{near, writes})
	go io.Copy(io.Discard, far)

	jumbo := make([]byte, 65472) // what WireGuard makes of a packet of 65440 bytes
	if err := l.Send([][]byte{jumbo, jumbo, jumbo, jumbo, jumbo, {1}, {2}}); err != nil {
		t.Fatal(err)
	}
	if n := <-writes; n != 4*(len(jumbo)+frameHeader) || n > maxWrite {
		t.Errorf("first write has %d bytes, want four datagrams", n)
	}
	if n, want := <-writes, len(jumbo)+frameHeader+2*(1+frameHeader); n != want {
		t.Errorf("second write has %d bytes, want the remaining three datagrams, %d", n, want)
	}
	if got, want := l.Stats().BytesOut, uint64(5*len(jumbo)+2); got != want {
		t.Errorf("BytesOut = %d, want %d", got, want)
	}
}

type writeLogger struct {
	io.ReadWriteCloser
	sizes chan<- int
}

func (w writeLogger) Write(p []byte) (int, error) {
	w.sizes <- len(p)
	return w.ReadWriteCloser.Write(p)
}

func TestSendRefusesSizes(t *testing.T) {
	l := New(Config{}) // no carrier: what is refused must not wait
	for _, p := range [][]byte{{}, make([]byte, maxDatagram+1)} {
		if err := l.Send([][]byte{{1}, p}); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("Send of %d bytes = %v, want EMSGSIZE", len(p), err)
		}
	}
	if err := l.Send(nil); err != nil {
		t.Errorf("Send of nothing = %v", err)
	}
	if err := l.SendUrgent(0, make([]byte, urgentMaxSize+1)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("SendUrgent of %d bytes = %v, want EINVAL", urgentMaxSize+1, err)
	}
	if err := l.SendUrgent(urgentSlots, []byte{1}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("SendUrgent in slot %d = %v, want EINVAL", urgentSlots, err)
	}
}

// TestKilledCarriers kills carriers while numbered datagrams of all sizes flow both ways: what arrives is whole
// and in order, a gap or a repetition occurs only at a kill, and every kill is got over.
func TestKilledCarriers(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) func() (client, agent io.ReadWriteCloser){
		"pipe": func(testing.TB) func() (client, agent io.ReadWriteCloser) { return linktest.Pipes },
		"tcp":  linktest.TCPPairs,
	} {
		t.Run(name, func(t *testing.T) {
			leaktest.Check(t)
			client, agent, kill := linked(t, pair(t))
			var received [2]atomic.Uint64
			var flows sync.WaitGroup
			for i, ends := range [][2]*Link{{client, agent}, {agent, client}} {
				flows.Go(func() { sendNumbered(ends[0]) })
				flows.Go(func() { receiveNumbered(t, ends[1], &received[i]) })
			}
			const kills = 5
			for range kills {
				for i := range received {
					mark := received[i].Load()
					linktest.Within(t, 20*time.Second, "getting over a lost carrier", func() {
						for received[i].Load() < mark+50 {
							time.Sleep(100 * time.Microsecond)
						}
					})
				}
				kill()
			}
			if s := client.Stats(); s.Redials < kills-1 || s.BytesIn == 0 || s.BytesOut == 0 || s.LastReceive.IsZero() {
				t.Errorf("stats %+v after %d kills", s, kills)
			}
			linktest.Within(t, time.Second, "Close", func() {
				client.Close()
				agent.Close()
				flows.Wait()
			})
		})
	}
}

func sendNumbered(l *Link) {
	buf := make([]byte, maxDatagram)
	for i := uint64(0); ; i++ {
		size := 8 + int(i*7919%5000)
		if i%64 == 0 {
			size = maxDatagram
		}
		p := buf[:size]
		binary.BigEndian.PutUint64(p, i)
		fill(p[8:], byte(i))
		if l.Send([][]byte{p}) != nil {
			return
		}
	}
}

func fill(p []byte, b byte) {
	for i := range p {
		p[i] = b
	}
}

func receiveNumbered(t *testing.T, l *Link, received *atomic.Uint64) {
	bufs := make([][]byte, 8)
	for i := range bufs {
		bufs[i] = make([]byte, maxDatagram)
	}
	sizes := make([]int, len(bufs))
	var last uint64
	for {
		n, err := l.Receive(bufs, sizes)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Receive: %v", err)
			}
			return
		}
		for i, size := range sizes[:n] {
			p := bufs[i][:size]
			if size < 8 {
				t.Errorf("datagram of %d bytes was never sent", size)
				return
			}
			number := binary.BigEndian.Uint64(p)
			want := 8 + int(number*7919%5000)
			if number%64 == 0 {
				want = maxDatagram
			}
			if size != want || bytes.Count(p[8:], []byte{byte(number)}) != size-8 {
				t.Errorf("datagram %d has %d bytes or foreign ones, want %d", number, size, want)
				return
			}
			if number < last && received.Load() > 0 {
				t.Errorf("datagram %d after %d", number, last)
				return
			}
			last = number
			received.Add(1)
		}
	}
}

// TestCloseUnblocks closes links on which Send and Receive wait, for every reason there is to wait.
func TestCloseUnblocks(t *testing.T) {
	tests := []struct {
		name   string
		attach func(t *testing.T, l *Link)
	}{
		{"no carrier", func(*testing.T, *Link) {}},
		{"nobody reads a pipe", func(t *testing.T, l *Link) {
			near, far := net.Pipe()
			t.Cleanup(func() { far.Close() })
			l.Attach(near)
		}},
		{"nobody reads a socket", func(t *testing.T, l *Link) {
			near, far := linktest.TCPPairs(t)()
			t.Cleanup(func() { far.Close() })
			l.Attach(near)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			l := New(Config{})
			tt.attach(t, l)
			var calls sync.WaitGroup
			calls.Go(func() {
				if err := l.Run(context.Background()); err != nil {
					t.Errorf("Run = %v, want nil after Close", err)
				}
			})
			var sent atomic.Int64
			for range 2 {
				calls.Go(func() {
					for {
						if err := l.Send([][]byte{make([]byte, 60000)}); err != nil {
							if !errors.Is(err, net.ErrClosed) {
								t.Errorf("Send = %v, want net.ErrClosed", err)
							}
							return
						}
						sent.Add(1)
					}
				})
				calls.Go(func() {
					if n, err := l.Receive([][]byte{make([]byte, 100)}, make([]int, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
						t.Errorf("Receive = %d, %v, want net.ErrClosed", n, err)
					}
				})
			}
			for before := int64(-1); before != sent.Load(); time.Sleep(20 * time.Millisecond) {
				before = sent.Load() // until the senders are blocked
			}
			linktest.Within(t, time.Second, "Close", func() {
				l.Close()
				calls.Wait()
			})
			if err := l.Send([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Send after Close = %v", err)
			}
			if err := l.SendUrgent(0, []byte{1}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("SendUrgent after Close = %v", err)
			}
			near, far := net.Pipe()
			l.Attach(near)
			if _, err := far.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("carrier attached after Close is open: %v", err)
			}
			if err := l.Close(); err != nil {
				t.Errorf("second Close = %v", err)
			}
		})
	}
}

// TestTornDatagram loses a carrier in the middle of a write: the next one carries the batch from its beginning.
func TestTornDatagram(t *testing.T) {
	leaktest.Check(t)
	l := New(Config{})
	defer l.Close()
	near, far := net.Pipe()
	l.Attach(near)
	sent := make(chan error, 1)
	want := bytes.Repeat([]byte{5}, 1000)
	go func() { sent <- l.Send([][]byte{{1, 2, 3}, want}) }()
	if _, err := io.ReadFull(far, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	near, far2 := net.Pipe()
	l.Attach(near)
	defer far2.Close()
	if rest, _ := io.ReadAll(far); len(rest) != 0 {
		t.Errorf("%d bytes more on the old carrier", len(rest))
	}
	got := make([]byte, frameHeader+3+frameHeader+len(want))
	if _, err := io.ReadFull(far2, got); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, appendDatagram(appendDatagram(nil, []byte{1, 2, 3}), want)) {
		t.Error("the batch was not written again from its beginning")
	}
}

func BenchmarkLinkTCP(b *testing.B) {
	client, agent, _ := linked(b, linktest.TCPPairs(b))
	const size, batch = 65472, 4
	pkts := make([][]byte, batch)
	for i := range pkts {
		pkts[i] = make([]byte, size)
	}
	done := make(chan struct{})
	b.SetBytes(size * batch)
	b.ReportAllocs()
	go func() {
		defer close(done)
		bufs := make([][]byte, 8)
		for i := range bufs {
			bufs[i] = make([]byte, maxDatagram)
		}
		sizes := make([]int, len(bufs))
		for got := 0; got < b.N*batch; {
			n, err := agent.Receive(bufs, sizes)
			if err != nil {
				b.Error(err)
				return
			}
			got += n
		}
	}()
	b.ResetTimer()
	for range b.N {
		if err := client.Send(pkts); err != nil {
			b.Fatal(err)
		}
	}
	<-done
}
