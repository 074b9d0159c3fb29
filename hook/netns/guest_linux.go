package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// GuestConfig says what a guest's part of the session looks like.
type GuestConfig struct {
	// Addrs are the session's own addresses, at most one per family. At least
	// one is required.
	Addrs []netip.Addr
	// MTU of the packet device, default 65440.
	MTU int
	// Admit, if not nil, looks at the networks that the guest's namespace is in
	// by itself, and refuses it by an error.
	Admit func(nets []netip.Prefix) error
}

// Guest is the daemon's end of a network namespace that is not the helper's: a
// container's, whose first process is GuestMain. Its methods may be called
// concurrently.
type Guest struct {
	packets
	ctl  *net.UnixConn
	nets []netip.Prefix
	done chan struct{} // closed when the guest has gone
}

// ListenGuests listens for guests at path. Whoever reaches the path may become
// one: its directory has to be closed to others. A container is shown the socket
// itself, and its first process may have another user id there.
func ListenGuests(path string) (*net.UnixListener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for guests: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("open the socket to guests: %w", err), ln.Close())
	}
	return ln, nil
}

// Welcome tells who has connected by ctl what to build and takes its packet
// device. It owns ctl. ctx bounds the call only.
func Welcome(ctx context.Context, ctl *net.UnixConn, cfg GuestConfig) (*Guest, error) {
	if err := checkAddrs(cfg.Addrs); err != nil {
		return nil, errors.Join(err, ctl.Close())
	}
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ctl.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	g := &Guest{ctl: ctl, done: make(chan struct{})}
	if err := g.handshake(cfg); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%v)", ctx.Err(), err)
		}
		return nil, errors.Join(err, g.packets.close(), ctl.Close())
	}
	go g.wait() // ends with the guest, or at Close
	return g, nil
}

func (g *Guest) handshake(cfg GuestConfig) error {
	if err := sendControl(g.ctl, setup{Addrs: cfg.Addrs, MTU: cfg.MTU}, -1); err != nil {
		return err
	}
	var r ready
	fd, err := recvControl(g.ctl, &r)
	if err != nil {
		return err
	}
	if r.Failure != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return fmt.Errorf("set up the container's network: %w", r.Failure)
	}
	if fd < 0 {
		return errors.New("set up the container's network: it sent no packet device")
	}
	if err := g.packets.open(fd, r); err != nil {
		return err
	}
	g.nets = r.Nets
	var why admission
	if cfg.Admit != nil {
		if err := cfg.Admit(r.Nets); err != nil {
			why.Refused = err.Error()
			return errors.Join(err, sendControl(g.ctl, why, -1))
		}
	}
	return sendControl(g.ctl, why, -1)
}

// Nets are the networks that the guest's namespace is in by itself.
func (g *Guest) Nets() []netip.Prefix { return g.nets }

// wait notices the guest's end.
func (g *Guest) wait() {
	defer close(g.done)
	for {
		var b [1]byte
		if n, err := g.ctl.Read(b[:]); err != nil || n == 0 {
			return
		}
	}
}

// Done is closed when the guest has gone.
func (g *Guest) Done() <-chan struct{} { return g.done }

// Close sends the guest away: its first process ends. Sockets that programs there
// have of the session get errors.
func (g *Guest) Close() error {
	g.ctl.Write([]byte{goodbye}) // if it is gone already, so much the better
	g.ctl.Close()
	err := g.packets.close()
	<-g.done
	return err
}
