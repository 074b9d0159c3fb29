package fairqueue

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// ack is a pure acknowledgement of flow n, data a segment with data.
func ack(n int, number uint32) Packet {
	return Packet{Flow: numbered(n), Size: 52, Acking: flow.Acking{Seq: 1, Ack: number, Pure: true}}
}

func data(n int, number uint32, size int) Packet {
	return Packet{Flow: numbered(n), Size: size, Acking: flow.Acking{Seq: 1, Ack: number}}
}

func TestAckWaits(t *testing.T) {
	type push struct {
		p     Packet
		waits bool
	}
	tests := []struct {
		name    string
		pushes  []push
		hurry   bool
		want    []int // popped, by their place in pushes
		dropped []int
	}{
		{"alone", []push{{ack(1, 10), true}}, false, nil, nil},
		{"for-the-next", []push{{ack(1, 10), true}, {ack(1, 20), true}}, false, nil, []int{0}},
		{"until-it-is-due", []push{{ack(1, 10), true}, {ack(1, 20), true}}, true, []int{1}, []int{0}},
		{"for-data", []push{{ack(1, 10), true}, {data(1, 20, 500), false}}, false, []int{0, 1}, nil},
		{"for-others", []push{{ack(1, 10), true}, {ack(2, 10), true}, {data(3, 1, 500), false}}, false, []int{2, 0, 1}, nil},
		{"behind-data", []push{{data(1, 10, 500), false}, {ack(1, 20), false}, {ack(1, 30), false}}, false, []int{0, 2}, []int{1}},
		{"before-what-does-not-say-it", []push{{ack(1, 10), true}, {Packet{Flow: numbered(1), Size: 40, Acking: flow.Acking{Seq: 1}}, false}}, false, []int{0, 1}, nil},
		{"not-udp", []push{{Packet{Flow: numbered(1), Size: 40}, false}}, false, []int{0}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var dropped []int
			q := New(func(i int) { dropped = append(dropped, i) })
			for i, p := range tt.pushes {
				if _, waits := q.Push(i, p.p, start); waits != p.waits {
					t.Errorf("push %d waits: %v", i, waits)
				}
			}
			if tt.hurry && !q.Hurry(Express) {
				t.Error("Hurry finds nothing")
			}
			if got := all(q, Express); !slices.Equal(got, tt.want) {
				t.Errorf("popped %v, want %v", got, tt.want)
			}
			if !slices.Equal(dropped, tt.dropped) {
				t.Errorf("dropped %v, want %v", dropped, tt.dropped)
			}
			q.Hurry(Express)
			all(q, Express)
			if q.Bytes() != 0 || q.Len() != 0 || q.LaneBytes(Express) != 0 || q.FlowBytes(numbered(1)) != 0 {
				t.Errorf("%d packets of %d bytes left", q.Len(), q.Bytes())
			}
			if q.Hurry(Express) {
				t.Error("Hurry finds what has left")
			}
		})
	}
}

// TestWaitingAckFollowsItsFlow: an acknowledgement that waits is not overtaken when its flow moves to the other lane.
func TestWaitingAckFollowsItsFlow(t *testing.T) {
	q := New(ignore[int])
	q.Split(true)
	q.Push(0, data(1, 1, 100), start)
	all(q, Express)
	q.Push(1, Packet{Flow: numbered(1), Size: 52, Acking: flow.Acking{Seq: 0, Pure: true}}, start)
	if l, _ := q.Push(2, data(1, 2, 2*burst), start); l != Bulk {
		t.Fatalf("a flow of %d bytes leaves by %v", 2*burst, l)
	}
	if got := append(all(q, Express), all(q, Bulk)...); len(got) != 0 {
		t.Errorf("%v left before what is on its way had arrived", got)
	}
	q.Arrived(Express, 1)
	if got := all(q, Bulk); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("popped %v, want 1 and 2", got)
	}
}

func TestAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Alarm
		rung := 0
		var mu sync.Mutex // guards both, as it would the queue
		ring := func() {
			mu.Lock()
			defer mu.Unlock()
			a.Rung()
			rung++
		}
		set := func() {
			mu.Lock()
			defer mu.Unlock()
			a.Set(ring)
		}
		set()
		time.Sleep(AckDelay / 2)
		set() // set already
		time.Sleep(AckDelay / 2)
		synctest.Wait()
		if rung != 1 {
			t.Errorf("rung %d times", rung)
		}
		set()
		mu.Lock()
		a.Stop()
		mu.Unlock()
		time.Sleep(2 * AckDelay)
		synctest.Wait()
		if rung != 1 {
			t.Errorf("rung %d times, the last time after Stop", rung)
		}
		set()
		time.Sleep(2 * AckDelay)
		synctest.Wait()
		if rung != 2 {
			t.Errorf("rung %d times, not again after Stop", rung)
		}
	})
}
