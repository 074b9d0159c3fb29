package main

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestWitness runs flows of the kinds that ask, against servers that answer well, wrongly, and not to the end.
func TestWitness(t *testing.T) {
	echo := func(b []byte) []byte { return b }
	other := func(b []byte) []byte {
		b[len(b)-1]++
		return b
	}
	for _, tt := range []struct {
		name        string
		answer      func([]byte) []byte // nil ends the connection, or says nothing over UDP
		lost, wrong int
	}{
		{"well", echo, 0, 0},
		{"wrongly", other, 0, 3},
		{"not", nil, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := serveBoth(t, tt.answer)
			w := witness{over: make(chan struct{}), patience: time.Minute}
			if tt.answer == nil {
				w.patience = 50 * time.Millisecond
			}
			if tt.lost+tt.wrong == 0 { // others end by themselves
				end := time.AfterFunc(100*time.Millisecond, func() { close(w.over) })
				defer end.Stop()
			}
			var flows sync.WaitGroup
			for i, run := range []func(int, string) error{w.ask, w.datagrams, w.rest} {
				flows.Go(func() {
					if err := run(i, addr); err != nil {
						w.lost(i, err)
					}
				})
			}
			flows.Wait()
			if len(w.found.Lost) != tt.lost || len(w.found.Wrong) != tt.wrong {
				t.Errorf("lost %q, want %d; wrong %q, want %d", w.found.Lost, tt.lost, w.found.Wrong, tt.wrong)
			}
		})
	}
}

// serveBoth answers on a port of TCP and UDP.
func serveBoth(t *testing.T, answer func([]byte) []byte) string {
	t.Helper()
	l, pc := listenBoth(t)
	go func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with c
				defer c.Close()
				buf := make([]byte, 4000)
				for answer != nil {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(answer(buf[:n])); err != nil {
						return
					}
				}
				io.CopyN(io.Discard, c, 1)
			}()
		}
	}()
	go func() { // ends with pc
		buf := make([]byte, 4000)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer != nil {
				_, _ = pc.WriteTo(answer(buf[:n]), from)
			}
		}
	}()
	return l.Addr().String()
}

// TestLoadedByOneLateAnswer: a round trip that takes longer than the flow beside it is no failure, the next flow has others.
func TestLoadedByOneLateAnswer(t *testing.T) {
	const length = 20 * time.Millisecond
	var late, first sync.Once
	over := make(chan struct{}) // the first flow
	echo := serveBoth(t, func(b []byte) []byte {
		late.Do(func() { <-over; time.Sleep(length) })
		return b
	})
	flows := 0
	got, err := loaded(echo, length, func() (float64, error) {
		flows++
		time.Sleep(length)
		first.Do(func() { close(over) })
		return 1, nil
	})
	if err != nil || got.P50 <= 0 || got.Bulk != 1 || flows < 2 {
		t.Errorf("got %+v, %v of %d flows", got, err, flows)
	}
}

// listenBoth returns listeners of a port that is free for TCP and UDP, until the test ends.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		pc, err := net.ListenPacket("udp4", l.Addr().String())
		if errors.Is(err, syscall.EADDRINUSE) {
			continue // somebody's datagrams
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		return l, pc
	}
	t.Fatal("no port is free for TCP and UDP")
	return nil, nil
}

func TestGaps(t *testing.T) {
	at := func(seconds float64) time.Time {
		return time.Unix(0, 0).Add(time.Duration(seconds * float64(time.Second)))
	}
	f := Survival{Flows: len(kinds), Stalls: []Stall{
		{Flow: 0, Begin: at(9), End: at(12)},   // 2 s of it after the cut
		{Flow: 1, Begin: at(11), End: at(12)},  // 1 s
		{Flow: 2, Begin: at(30), End: at(35)},  // after the second one
		{Flow: 4, Begin: at(10), End: at(100)}, // idle: says nothing of the carrier
	}}
	got := f.gaps([]time.Time{at(10), at(29)})
	if want := []float64{0, 0, 0, 0, 0, 1, 2, 5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
