package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

// serveTCP runs handle on a port of its own and returns a connection to it.
func serveTCP(t *testing.T, handle func(context.Context, *net.TCPConn) error) *net.TCPConn {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skipf("needs IPv6 loopback: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- accept(ctx, l, handle) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("accept: %v", err)
		}
	})
	return c.(*net.TCPConn)
}

func TestAnswersAfterRequest(t *testing.T) {
	sum := stream.Sum(1000, 9)
	payload := make([]byte, 1000)
	if _, err := io.ReadFull(stream.New(1000, 9), payload); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		handle func(context.Context, *net.TCPConn) error
		send   []byte
		want   []byte
	}{
		{"echo", echo, payload, payload},
		{"sink", sink, payload, fmt.Appendf(nil, "1000 %x\n", sum)},
		{"source", source, []byte("1000 9\n"), payload},
		{"half-close", halfClose, payload, payload},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serveTCP(t, tt.handle)
			if _, err := c.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, tt.want) {
				t.Errorf("got %d bytes %.80q, want %d bytes %.80q", len(got), got, len(tt.want), tt.want)
			}
		})
	}
}

func TestWho(t *testing.T) {
	c := serveTCP(t, who)
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if want := c.LocalAddr().String() + "\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReset(t *testing.T) {
	c := serveTCP(t, reset)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want ECONNRESET", err)
	}
}

func TestStall(t *testing.T) {
	c := serveTCP(t, stall)
	if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(c, stream.New(1<<40, 0)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write to a peer that never reads: %v, want a full window", err)
	}
}

func TestDatagrams(t *testing.T) {
	pc, err := net.ListenUDP("udp", nil) // both families, so that IPv4 peers are mapped
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- answerDatagrams(ctx, pc, whoDatagram) }()
	port := pc.LocalAddr().(*net.UDPAddr).Port
	c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(buf[:n]), c.LocalAddr().String()+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
