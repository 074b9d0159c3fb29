// Package container makes the container that owns a network namespace of a
// session: other containers join that, and are the pod.
//
// The container runs borrownet itself (netns.GuestMain) from an image that is
// made of this very program, so no registry has to be asked. It has NET_ADMIN in
// its own namespace and the TUN device, and sees one socket of the session;
// nothing of the engine's.
package container

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/engine"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/hook/netns"
)

// Labels of what borrownet makes.
const (
	// SessionLabel has the name of the session.
	SessionLabel = "dev.borrownet.session"
	// OwnerLabel has the runtime directory of the daemon that keeps it.
	OwnerLabel = "dev.borrownet.owner"
)

const (
	// memory and processes bound what the container takes: it copies no packet.
	memory    = 128 << 20
	processes = 64
)

// TUN is the device by which packets cross.
const TUN = "/dev/net/tun"

// Verb is the argument by which borrownet becomes the container's process.
const Verb = "__guest"

// Spec says which container is wanted.
type Spec struct {
	Name     string // of the container
	Image    string // as Load returns it
	Session  string
	Owner    string     // runtime directory of the daemon
	Socket   string     // of the session, where netns.ListenGuests listens
	Resolver netip.Addr // whom programs ask for names
	IPv6     bool       // the pod has IPv6
	// Publish are ports of this machine's loopback, by the containers' ports.
	Publish map[uint16]uint16
}

// Start makes and starts the container and returns its id. It takes the place of
// one that an earlier daemon of the same owner has left.
func Start(ctx context.Context, e *engine.Client, s Spec) (string, error) {
	id, err := e.Create(ctx, s.Name, s.container())
	if engine.IsRefused(err, http.StatusConflict) {
		if !s.leftover(ctx, e) {
			return "", &fault.Error{Code: fault.Engine, ID: "BN2204", Op: "make container", Object: s.Name, Reason: "there is a container of that name", Err: err,
				Hint: "docker rm -f " + s.Name + ", or another name: --docker=OTHER"}
		}
		id, err = e.Create(ctx, s.Name, s.container())
	}
	if err != nil {
		return "", Explain("make container", s.Name, e, err)
	}
	if err := e.Start(ctx, id); err != nil {
		err = s.explainStart(e, err)
		if gone := Remove(context.WithoutCancel(ctx), e, id); gone != nil {
			err = fmt.Errorf("%w (and it stays: %w)", err, gone)
		}
		return "", err
	}
	return id, nil
}

// Remove ends a container and returns when it is gone: its image is not in use any
// more then.
func Remove(ctx context.Context, e *engine.Client, id string) error {
	if err := e.Remove(ctx, id); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond) // the engine may be at it by itself
	defer tick.Stop()
	for {
		if _, err := e.Inspect(ctx, id); err != nil {
			if engine.IsRefused(err, http.StatusNotFound) {
				return nil
			}
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leftover removes a container of that name that is an earlier session's of the
// same owner, and reports whether it did.
func (s Spec) leftover(ctx context.Context, e *engine.Client) bool {
	found, err := e.Inspect(ctx, s.Name)
	if err != nil {
		return engine.IsRefused(err, http.StatusNotFound) // it has just gone
	}
	labels := found.Config.Labels
	if labels[OwnerLabel] != s.Owner || labels[SessionLabel] != s.Session {
		return false
	}
	return Remove(ctx, e, found.ID) == nil
}

// container is s as the engine wants it.
func (s Spec) container() engine.Spec {
	out := engine.Spec{
		Image:  s.Image,
		Labels: map[string]string{SessionLabel: s.Session, OwnerLabel: s.Owner},
		HostConfig: engine.HostConfig{
			// If the daemon is killed its process ends, and the container goes with it.
			AutoRemove: true, ReadonlyRootfs: true, Memory: memory, PidsLimit: processes,
			CapDrop: []string{"ALL"}, CapAdd: Capabilities(HasTUN()), Devices: devices(), Sysctls: Sysctls(s.IPv6),
			Dns: []string{s.Resolver.String()}, DnsSearch: []string{"."},
			SecurityOpt: SecurityOptions(),
			Mounts:      []engine.Mount{{Type: "bind", Source: s.Socket, Target: netns.GuestSocket, ReadOnly: true}},
		},
	}
	for _, port := range slices.Sorted(maps.Keys(s.Publish)) {
		out.Publish(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.Publish[port]), port)
	}
	return out
}

// Command is the process of the container, with arguments of netns.GuestMain.
func Command(args ...string) []string { return append([]string{program, Verb}, args...) }

// SecurityOptions let the process have what it needs of a machine with SELinux:
// the user's own socket is not labelled for containers.
func SecurityOptions() []string { return []string{"no-new-privileges", "label=disable"} }

// HasTUN reports whether this machine has the device that packets cross by.
func HasTUN() bool {
	_, err := os.Stat(TUN)
	return err == nil
}

// Capabilities are what the container's process needs in its own namespace.
// Without a TUN device a packet socket stands in.
func Capabilities(tun bool) []string {
	if tun {
		return []string{"NET_ADMIN"}
	}
	return []string{"NET_ADMIN", "NET_RAW"}
}

func devices() []engine.Device {
	if !HasTUN() {
		return nil
	}
	return []engine.Device{{PathOnHost: TUN, PathInContainer: TUN, CgroupPermissions: "rw"}}
}

// Sysctls are the settings of the container's namespace: it cannot write them
// itself. Engines switch IPv6 off where their own network has none.
func Sysctls(ipv6 bool) map[string]string {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil || !ipv6 {
		return nil
	}
	return map[string]string{"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
}
