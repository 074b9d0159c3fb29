package session

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"testing/synctest"
)

// pops takes one batch and returns it.
func pops(t *testing.T, q *queue) [][]byte {
	t.Helper()
	bufs, sizes := make([][]byte, 4), make([]int, 4)
	for i := range bufs {
		bufs[i] = make([]byte, maxPacket+8)
	}
	n, err := q.pop(bufs, sizes, 8)
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
	q.setUp(true)
	want := [][]byte{[]byte("a"), bytes.Repeat([]byte("b"), 60000), []byte("c"), []byte("d"), []byte("e")}
	for _, p := range want {
		q.push(p)
	}
	got := append(pops(t, q), pops(t, q)...)
	if len(got) != len(want) {
		t.Fatalf("got %d packets, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("packet %d differs", i)
		}
	}
}

func TestQueueBlocksWhileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.setUp(true)
		big := make([]byte, 60000)
		pushed := 0
		go func() {
			for range 5 {
				q.push(big)
				pushed++
			}
		}()
		synctest.Wait()
		if pushed != queueUp/len(big) {
			t.Errorf("%d packets fit, want %d", pushed, queueUp/len(big))
		}
		pops(t, q)
		synctest.Wait()
		if want := 2 * (queueUp / len(big)); pushed != want {
			t.Errorf("%d packets went through, want %d", pushed, want)
		}
		q.close()
		synctest.Wait()
		if pushed != 5 {
			t.Error("close does not let a blocked push go")
		}
	})
}

func TestQueueDropsWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.setUp(true)
		big := make([]byte, 64000)
		done := make(chan struct{})
		go func() {
			for range 40 {
				q.push(big)
			}
			close(done)
		}()
		synctest.Wait()
		q.setUp(false) // lets the blocked push go; none blocks from now on
		<-done
		if got, want := q.drops(), uint64(40-queueDown/len(big)); got != want {
			t.Errorf("%d dropped, want %d", got, want)
		}
	})
}

func TestQueueClose(t *testing.T) {
	q := newQueue()
	q.push([]byte("x"))
	q.close()
	if _, err := q.pop(make([][]byte, 1), make([]int, 1), 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("pop: %v, want net.ErrClosed", err)
	}
	q.push([]byte("y"))
	if q.drops() != 1 {
		t.Errorf("%d dropped, want 1", q.drops())
	}
}

func BenchmarkQueue(b *testing.B) {
	for _, size := range []int{64, 65440} {
		b.Run(map[int]string{64: "small", 65440: "jumbo"}[size], func(b *testing.B) {
			q := newQueue()
			q.setUp(true)
			b.SetBytes(int64(size))
			done := make(chan struct{})
			go func() {
				defer close(done)
				bufs, sizes := make([][]byte, 16), make([]int, 16)
				for i := range bufs {
					bufs[i] = make([]byte, maxPacket)
				}
				for {
					_, err := q.pop(bufs, sizes, 0)
					if err != nil {
						return
					}
				}
			}()
			pkt := make([]byte, size)
			for b.Loop() {
				q.push(pkt)
			}
			q.close()
			<-done
		})
	}
}
