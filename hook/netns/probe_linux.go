package netns

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
)

// Probe makes a session namespace and gives it up at once. It returns the kind of
// its packet device, or why there can be none, as Start does. exe is the argument
// vector that ends in Main.
func Probe(ctx context.Context, exe []string) (kind string, err error) {
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	h, err := Start(ctx, Config{Exe: exe, Socket: filepath.Join(dir, "s"), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}})
	if err != nil {
		return "", err
	}
	return h.Kind(), h.Close()
}
