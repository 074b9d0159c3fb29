package link

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestGoodbye: after a goodbye the peer's Run returns at once, what was sent before has arrived, and no carrier is
// dialled any more.
func TestGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		client := New(Config{Dial: func(context.Context) (io.ReadWriteCloser, error) {
			dials++
			return nil, errors.New("no")
		}})
		agent := New(Config{})
		near, far := net.Pipe()
		client.Attach(near)
		agent.Attach(far)
		ends := []<-chan error{runs(client), runs(agent)}
		got := make(chan string, 1)
		go func() {
			buf, sizes := [][]byte{make([]byte, maxDatagram)}, make([]int, 1)
			if n, err := client.Receive(buf, sizes); n == 1 && err == nil {
				got <- string(buf[0][:sizes[0]])
			}
			drain(client)
		}()
		go drain(agent)
		if err := agent.Send([][]byte{[]byte("last words")}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		agent.Leave(t.Context())
		if err := <-ends[0]; !errors.Is(err, ErrBye) {
			t.Errorf("Run = %v, want ErrBye", err)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("it took %v", took)
		}
		if words := <-got; words != "last words" {
			t.Errorf("received %q", words)
		}
		if dials != 0 || client.Stats().Up {
			t.Errorf("%d dials after a goodbye, up %t", dials, client.Stats().Up)
		}
		agent.Close()
		if err := <-ends[1]; err != nil {
			t.Errorf("Run of the end that left = %v", err)
		}
	})
}

// TestGoodbyeOfAClient: a client says none, so who can write into a carrier does not end an agent's session with one.
func TestGoodbyeOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := New(Config{})
		near, far := net.Pipe()
		agent.Attach(far)
		end := runs(agent)
		go drain(agent)
		go io.Copy(io.Discard, near)
		if _, err := near.Write([]byte{0, 0, codeBye, 0}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !agent.Stats().Up {
			t.Error("the carrier is lost")
		}
		agent.Close()
		if err := <-end; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// TestGoodbyeIsBounded: a peer that is not there, does not listen or does not answer holds nobody up.
func TestGoodbyeIsBounded(t *testing.T) {
	const limit = 300 * time.Millisecond
	for _, tt := range []struct {
		name   string
		attach bool
		block  bool
		want   time.Duration
	}{
		{"nobody", false, false, 0},
		{"deaf", true, false, limit},
		{"blocked", true, true, limit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{})
				end := runs(l)
				if tt.attach {
					m := newMuted()
					m.block.Store(tt.block)
					l.Attach(m)
				}
				go drain(l)
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				begun := time.Now()
				l.Leave(ctx)
				if took := time.Since(begun); took != tt.want {
					t.Errorf("Leave took %v, want %v", took, tt.want)
				}
				l.Close()
				if err := <-end; err != nil {
					t.Errorf("Run = %v", err)
				}
			})
		})
	}
}
