package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestOutside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tmux-1000")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "default")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tt := range []struct {
		name string
		top  int // of the session's processes
		path string
		want int // warnings for three connections
	}{
		{"outside", 1 << 30, path, 1},
		{"inside", os.Getpid(), path, 0},
		{"nobody-listens", 1 << 30, path + "-other", 0},
		{"unknown", 1 << 30, filepath.Join(dir, "..", "socket"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			warnings := 0
			o := outside{self: tt.top, said: map[string]bool{}, warn: func(text, hint string) {
				warnings++
				if want := "tmux was started outside of the session: the windows of its sessions are not in the pod"; text != want || hint == "" {
					t.Errorf("%q, hint %q", text, hint)
				}
			}}
			for range 3 {
				if first := o.connecting(tt.path); first != nil {
					first()
				}
			}
			if warnings != tt.want {
				t.Errorf("%d warnings, want %d", warnings, tt.want)
			}
		})
	}
}
