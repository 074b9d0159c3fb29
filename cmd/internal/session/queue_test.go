package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/flow"
)

// put pushes a packet as a pump does.
func put(q *queue, pkt []byte) {
	b := q.buffer()
	*b = append((*b)[:0], pkt...)
	q.push(b)
}

// pops takes one batch of a lane and returns it.
func pops(t *testing.T, q *queue, lane fairqueue.Lane) [][]byte {
	t.Helper()
	bufs, sizes := make([][]byte, 4), make([]int, 4)
	for i := range bufs {
		bufs[i] = make([]byte, maxPacket+8)
	}
	n, err := q.pop(lane, bufs, sizes, 8)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for i := range n {
		out = append(out, bufs[i][8:8+sizes[i]])
	}
	return out
}

func TestQueueKeepsOrder(t *testing.T) {
	q := newQueue()
	q.setUp(fairqueue.Express, true)
	want := [][]byte{{1}, bytes.Repeat([]byte{2}, 60000), {3}, {4}, {5}}
	for _, p := range want {
		put(q, p)
	}
	got := append(pops(t, q, fairqueue.Express), pops(t, q, fairqueue.Express)...)
	if len(got) != len(want) {
		t.Fatalf("got %d packets, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("packet %d differs", i)
		}
	}
}

func TestQueueUsesTheBulkLaneWhileItIsUp(t *testing.T) {
	q := newQueue()
	q.setUp(fairqueue.Express, true)
	big := bytes.Repeat([]byte{2}, 60000)
	put(q, big)
	pops(t, q, fairqueue.Express)
	q.arrived(fairqueue.Express, 1)
	q.setUp(fairqueue.Bulk, true)
	for range 5 {
		put(q, big)
	}
	if got := pops(t, q, fairqueue.Bulk); len(got) != 4 || len(got[0]) != len(big) {
		t.Errorf("%d packets in the bulk lane, want a batch of 4", len(got))
	}
}

// tcpPacket returns a TCP packet that acknowledges up to number.
func tcpPacket(number uint32, payload int) []byte {
	pkt := make([]byte, 40+payload)
	pkt[0], pkt[9], pkt[32], pkt[33] = 4<<4|5, byte(flow.TCP), 5<<4, flow.ACK
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	binary.BigEndian.PutUint32(pkt[28:], number)
	return pkt
}

func TestQueueLetsAcknowledgementsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.setUp(fairqueue.Express, true)
		start := time.Now()
		for number := range uint32(3) {
			put(q, tcpPacket(number, 0))
		}
		got := pops(t, q, fairqueue.Express)
		if len(got) != 1 || !bytes.Equal(got[0], tcpPacket(2, 0)) || time.Since(start) != fairqueue.AckDelay {
			t.Errorf("%d packets after %v, want the last alone after %v", len(got), time.Since(start), fairqueue.AckDelay)
		}
		put(q, tcpPacket(3, 0))
		put(q, tcpPacket(4, 100))
		if got := pops(t, q, fairqueue.Express); len(got) != 2 || !bytes.Equal(got[1], tcpPacket(4, 100)) {
			t.Errorf("%d packets at once, want the acknowledgement and the data", len(got))
		}
		q.close()
	})
}

func TestQueueBlocksWhileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.setUp(fairqueue.Express, true)
		big := make([]byte, 64000)
		pushed := 0
		go func() {
			for range 300 {
				put(q, big)
				pushed++
			}
		}()
		synctest.Wait()
		if pushed != queueUp/len(big) {
			t.Errorf("%d packets fit, want %d", pushed, queueUp/len(big))
		}
		n := len(pops(t, q, fairqueue.Express))
		synctest.Wait()
		if want := queueUp/len(big) + n; pushed != want {
			t.Errorf("%d packets went through, want %d", pushed, want)
		}
		q.close()
		synctest.Wait()
		if pushed != 300 {
			t.Error("close does not let a blocked push go")
		}
	})
}

func TestQueueDropsWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.setUp(fairqueue.Express, true)
		big := make([]byte, 64000)
		done := make(chan struct{})
		go func() {
			for range 300 {
				put(q, big)
			}
			close(done)
		}()
		synctest.Wait()
		q.setUp(fairqueue.Express, false) // lets the blocked push go; none blocks from now on
		<-done
		if got, want := q.drops(), uint64(300-queueUp/len(big)); got != want {
			t.Errorf("%d dropped, want %d", got, want)
		}
		for len(pops(t, q, fairqueue.Express)) == 4 && q.packets.Len() > 0 {
		}
		before := q.drops()
		for range 100 {
			put(q, big)
		}
		if got, want := q.drops()-before, uint64(100-queueDown/len(big)); got != want {
			t.Errorf("%d of 100 dropped, want %d", got, want)
		}
	})
}

func TestQueueClose(t *testing.T) {
	q := newQueue()
	put(q, []byte("x"))
	q.close()
	if _, err := q.pop(fairqueue.Express, make([][]byte, 1), make([]int, 1), 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("pop: %v, want net.ErrClosed", err)
	}
	put(q, []byte("y"))
	if q.drops() != 1 {
		t.Errorf("%d dropped, want 1", q.drops())
	}
}

func BenchmarkQueue(b *testing.B) {
	for _, size := range []int{64, 65440} {
		b.Run(map[int]string{64: "small", 65440: "jumbo"}[size], func(b *testing.B) {
			q := newQueue()
			q.setUp(fairqueue.Express, true)
			b.SetBytes(int64(size))
			done := make(chan struct{})
			go func() {
				defer close(done)
				bufs, sizes := make([][]byte, 16), make([]int, 16)
				for i := range bufs {
					bufs[i] = make([]byte, maxPacket)
				}
				for {
					_, err := q.pop(fairqueue.Express, bufs, sizes, 0)
					if err != nil {
						return
					}
				}
			}()
			buf := q.buffer()
			for b.Loop() {
				*buf = (*buf)[:size]
				buf = q.push(buf)
			}
			q.close()
			<-done
		})
	}
}
