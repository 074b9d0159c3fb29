// Package enginetest stands in for a container engine in tests.
package enginetest

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// Serve answers by handler at a socket of its own until the test ends, and returns
// the socket's path.
func Serve(tb testing.TB, handler http.Handler) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "engine.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		tb.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	tb.Cleanup(func() {
		srv.Close()
		<-done
	})
	return socket
}
