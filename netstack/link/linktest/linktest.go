// Package linktest makes carriers for tests of links and of what runs over them.
package linktest

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// Pipes makes a carrier that holds nothing: a write waits for its read.
func Pipes() (client, agent io.ReadWriteCloser) { return net.Pipe() }

// TCPPairs returns a maker of carriers that are TCP conns on loopback.
func TCPPairs(t testing.TB) func() (client, agent io.ReadWriteCloser) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return func() (client, agent io.ReadWriteCloser) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return net.Pipe()
		}
		a, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return net.Pipe()
		}
		return c, a
	}
}

// Within fails the test if f takes longer than d.
func Within(t testing.TB, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }() // ends with f
	select {
	case <-done:
	case <-time.After(d):
		buf := make([]byte, 1<<20)
		t.Fatalf("%s takes longer than %v\n%s", what, d, buf[:runtime.Stack(buf, true)])
	}
}
