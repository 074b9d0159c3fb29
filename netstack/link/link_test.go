package link

import (
	"bufio"
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

// patience is how long what takes milliseconds may take on a machine that is busy.
const patience = 30 * time.Second

// TestKilledCarriers kills carriers while numbered datagrams of all sizes flow both ways: each arrives whole, once and in
// order, and every kill is got over.
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
			for k := range uint64(kills) {
				for i := range received {
					mark := received[i].Load()
					linktest.Within(t, patience, "getting over a lost carrier", func() {
						for received[i].Load() < mark+50 {
							time.Sleep(100 * time.Microsecond)
						}
					})
				}
				kill()
				linktest.Within(t, patience, "another carrier", func() { // what is read meanwhile may be of the lost one
					for client.Stats().Redials <= k {
						time.Sleep(100 * time.Microsecond)
					}
				})
			}
			if s := client.Stats(); s.BytesIn == 0 || s.BytesOut == 0 || s.LastReceive.IsZero() {
				t.Errorf("stats %+v after %d kills", s, kills)
			}
			linktest.Within(t, patience, "Close", func() {
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
			if number != received.Load() {
				t.Errorf("datagram %d, want %d", number, received.Load())
				return
			}
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
			linktest.Within(t, patience, "Close", func() {
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

// peer is the other end of a link by hand.
type peer struct {
	io.ReadWriteCloser
	frames frameReader
	acks   chan uint64
}

func newPeer(t *testing.T, l *Link) *peer {
	near, far := net.Pipe()
	p := &peer{ReadWriteCloser: far, acks: make(chan uint64, 100)}
	p.frames = frameReader{br: bufio.NewReader(far), control: func(code byte, payload []byte) {
		if code == codeAck {
			p.acks <- binary.BigEndian.Uint64(payload)
		}
	}}
	t.Cleanup(func() { far.Close() })
	l.Attach(near)
	return p
}

// next returns the next datagram's first byte.
func (p *peer) next(t *testing.T) byte {
	t.Helper()
	buf, sizes := [][]byte{make([]byte, maxDatagram)}, make([]int, 1)
	if _, err := p.frames.read(buf, sizes); err != nil {
		t.Error(err)
	}
	return buf[0][0]
}

// TestSentAgain loses carriers with datagrams on their way: the next one begins with what the peer says that it lacks.
func TestSentAgain(t *testing.T) {
	tests := []struct {
		name string
		has  uint64 // what the peer says on the second carrier
		want []byte
	}{
		{"nothing", 0, []byte{1, 2, 3, 4, 5, 6}},
		{"half-of-a-write", 1, []byte{2, 3, 4, 5, 6}},
		{"everything", 4, []byte{5, 6}},
		{"begun-anew", 1000, []byte{6}}, // the rest was meant for the peer that is gone
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			l := New(Config{})
			defer l.Close()
			end := runs(l)
			go drain(l)
			send := func(pkts ...[]byte) {
				if err := l.Send(pkts); err != nil {
					t.Error(err)
				}
			}
			first := newPeer(t, l)
			go func() { send([]byte{1}, []byte{2}); send([]byte{3}, []byte{4}) }()
			for i := range byte(4) {
				if got := first.next(t); got != i+1 {
					t.Fatalf("got %d", got)
				}
			}
			first.Close()
			second := newPeer(t, l)
			linktest.Within(t, patience, "the second carrier", func() {
				send([]byte{5}) // waits for the peer's word
				go func() {
					second.Write(appendControl(nil, codeResume, binary.BigEndian.AppendUint64(nil, tt.has)))
					if tt.has > 4 {
						for l.Stats().Unacked > 0 {
							time.Sleep(time.Millisecond)
						}
					}
					send([]byte{6})
				}()
				for _, want := range tt.want {
					if got := second.next(t); got != want {
						t.Errorf("got %d, want %d", got, want)
					}
				}
			})
			l.Close()
			<-end
		})
	}
}

// TestAcknowledges shows that what was received is acknowledged: soon when it is little, at once when it is much.
func TestAcknowledges(t *testing.T) {
	leaktest.Check(t)
	l := New(Config{})
	defer l.Close()
	end := runs(l)
	go drain(l)
	p := newPeer(t, l)
	go io.Copy(io.Discard, readFrames{p})
	linktest.Within(t, patience, "acknowledgements", func() {
		p.Write(appendDatagram(nil, []byte{1}))
		if got := <-p.acks; got != 1 {
			t.Errorf("acknowledged %d of 1", got)
		}
		for range 8 {
			p.Write(appendDatagram(nil, make([]byte, ackEvery/4-1)))
		}
		for got := uint64(0); got != 9; got = <-p.acks {
			if got > 9 {
				t.Errorf("acknowledged %d of 9", got)
			}
		}
	})
	l.Close()
	<-end
}

// readFrames is a Reader of a peer's datagrams, one per call.
type readFrames struct{ *peer }

func (r readFrames) Read(b []byte) (int, error) {
	sizes := make([]int, 1)
	_, err := r.frames.read([][]byte{make([]byte, maxDatagram)}, sizes)
	return 0, err
}

// TestAcknowledgedTooMuch shows that a peer which claims what it cannot have gains nothing.
func TestAcknowledgedTooMuch(t *testing.T) {
	l := New(Config{})
	defer l.Close()
	if err := l.Send([][]byte{make([]byte, 1000)}); err != nil { // kept for the first carrier
		t.Fatal(err)
	}
	for _, seq := range []uint64{0, 2, 1 << 63, 1<<64 - 1} {
		l.acknowledged(seq)
		if got := l.Stats().Unacked; got == 0 {
			t.Errorf("acknowledgement of %d frees what was not sent", seq)
		}
	}
	if l.acknowledged(1); l.Stats().Unacked != 0 {
		t.Error("the true acknowledgement frees nothing")
	}
}

// TestWindowBoundsWhatIsKept shows that Send waits when as much as the window allows is unacknowledged.
func TestWindowBoundsWhatIsKept(t *testing.T) {
	leaktest.Check(t)
	l := New(Config{})
	sent := make(chan error)
	go func() {
		var err error
		for err == nil {
			err = l.Send([][]byte{make([]byte, 60000)})
		}
		sent <- err
	}()
	linktest.Within(t, patience, "filling the window", func() {
		for s := l.Stats(); s.Unacked < s.Window-60000-frameHeader; s = l.Stats() {
			time.Sleep(time.Millisecond)
		}
	})
	if s := l.Stats(); s.Unacked > s.Window {
		t.Errorf("%d bytes unacknowledged, more than the window of %d", s.Unacked, s.Window)
	}
	l.Close()
	if err := <-sent; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send = %v", err)
	}
}

func BenchmarkLinkTCP(b *testing.B) {
	client, agent, _ := linked(b, linktest.TCPPairs(b))
	const size, batch = 65472, 4
	pkts := make([][]byte, batch)
	for i := range pkts {
		pkts[i] = make([]byte, size)
	}
	go drain(client) // its acknowledgements
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
