package hook

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
)

// Probe finds out what this machine allows to this process. helper is the
// argument vector that ends in netns.Main. It makes a namespace and lets it go,
// and so takes some hundredths of a second.
func Probe(ctx context.Context, helper []string) Machine {
	return Machine{Namespace: probeNamespace(ctx, helper), Listener: supervisor.Probe(), Library: Built()}
}

// probeNamespace makes a session namespace with an address for documentation.
func probeNamespace(ctx context.Context, helper []string) (err error) {
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	h, err := netns.Start(ctx, netns.Config{
		Exe: helper, Socket: filepath.Join(dir, "s"), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})},
	})
	if err != nil {
		return err
	}
	return h.Close()
}
