package main

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/demo"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// TestKilledDaemonLeavesTheDemo: what a daemon that was killed has left goes with the next
// question, and a demo that stays is not part of it.
func TestKilledDaemonLeavesTheDemo(t *testing.T) {
	base, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	t.Setenv("XDG_RUNTIME_DIR", base)
	client, dir, err := (&app{ui: newUI(nil, nil)}).client()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir.Path(rundir.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false) // as after kill -9
	ln.Close()
	if err := os.WriteFile(dir.Path(demo.SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.List(t.Context(), false); !errors.Is(err, daemon.ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
	entries, err := os.ReadDir(dir.String())
	if err != nil || len(entries) != 1 || entries[0].Name() != demo.SocketName {
		t.Errorf("left %v, %v, want the demo's socket alone", entries, err)
	}
}
