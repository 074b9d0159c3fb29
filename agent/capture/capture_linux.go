package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Capture reads packets from the kernel.
type Capture struct {
	spec   Spec
	places *places
	rings  [interfaces]*ring
	names  []string
}

// Open starts to capture. If the process may not, helper is executed, a program that ends in HelperMain; "" = there is
// none.
func Open(spec Spec, helper string) (_ *Capture, err error) {
	if spec.Ring == 0 {
		spec.Ring = DefaultRing
	}
	c := &Capture{spec: spec, places: newPlaces(spec), names: make([]string, interfaces)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.release())
		}
	}()
	for iface := range interfaces {
		dev, err := device(iface, spec.Addrs)
		if err != nil {
			return nil, err
		}
		c.names[iface] = dev.Name
		program, err := c.filter(iface)
		if err != nil {
			return nil, err
		}
		fd, err := packetSocket(helper)
		if err != nil {
			return nil, err
		}
		if c.rings[iface], err = newRing(fd, iface, dev, program, spec.ringOf(iface)); err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
	}
	return c, nil
}

// ringOf returns the bytes for an interface's ring: one on which ports are watched only has little to hold.
func (s *Spec) ringOf(iface uint8) int {
	switch {
	case len(s.Loopback) > 0 && len(s.Pod) > 0:
		return s.Ring / 2
	case iface == Loopback && len(s.Loopback) == 0, iface == Pod && len(s.Pod) == 0:
		return s.Ring / 8
	}
	return s.Ring / 8 * 7
}

// filter is what belongs on an interface's socket now.
func (c *Capture) filter(iface uint8) ([]bpf.RawInstruction, error) {
	ports, watched := c.places.rule(iface)
	return filter(c.spec, iface, ports, watched)
}

// refilter follows a change of places. A filter that cannot be changed, for want of the kernel's memory, stays.
func (c *Capture) refilter() {
	for iface := range interfaces {
		program, err := c.filter(iface)
		if err == nil {
			c.rings[iface].setFilter(program)
		}
	}
}

// Places returns where each port is captured now.
func (c *Capture) Places() []Place { return c.places.list() }

// device finds the network interface that is meant by iface.
func device(iface uint8, addrs []netip.Addr) (net.Interface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return net.Interface{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, dev := range list {
		loopback := dev.Flags&net.FlagLoopback != 0
		if loopback != (iface == Loopback) {
			continue
		}
		if loopback || len(addrs) > 0 && has(dev, addrs[0]) {
			return dev, nil
		}
	}
	if iface == Loopback {
		return net.Interface{}, errors.New("there is no loopback interface")
	}
	return net.Interface{}, fmt.Errorf("no interface has the pod's address %v", addrs)
}

func has(dev net.Interface, addr netip.Addr) bool {
	list, err := dev.Addrs()
	if err != nil {
		return false // it is gone
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
			return true
		}
	}
	return false
}

// packetSocket opens a packet socket that receives nothing yet.
func packetSocket(helper string) (int, error) {
	fd, err := openPacketSocket()
	switch {
	case err == nil:
		return fd, nil
	case !errors.Is(err, unix.EPERM):
		return -1, err
	case helper == "":
		return -1, fmt.Errorf("%w: the process has no CAP_NET_RAW", ErrNotPermitted)
	}
	return fromHelper(helper)
}

func openPacketSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return fd, os.NewSyscallError("socket AF_PACKET", err)
}

// Interfaces returns the names of the interfaces, indexed by Packet.Iface.
func (c *Capture) Interfaces() []string { return c.names }

// Counters returns the kernel's counters.
func (c *Capture) Counters() Counters {
	var sum Counters
	for _, r := range c.rings {
		if r != nil {
			n := r.counters()
			sum.Packets += n.Packets
			sum.Dropped += n.Dropped
		}
	}
	return sum
}

// Run hands packets to push until ctx ends. Their Data is valid during the call. lost is told of packets that the kernel
// dropped meanwhile, before the packets that came after them. Run must be called once: it gives everything back.
func (c *Capture) Run(ctx context.Context, push func(Packet), lost func(packets uint64)) error {
	handOn := func(p Packet) {
		captured, changed := c.places.look(p)
		if captured {
			push(p)
		}
		if changed {
			c.refilter()
		}
	}
	ended := make(chan error, interfaces)
	running := 0
	for _, r := range c.rings {
		if r != nil {
			running++
			go func() { ended <- r.run(handOn, lost) }() // ends with the ring
		}
	}
	stop := context.AfterFunc(ctx, func() { c.close() })
	var errs []error
	for range running {
		errs = append(errs, <-ended)
		errs = append(errs, c.close()) // one ring without the other is not what was asked for
	}
	stop()
	return errors.Join(append(errs, c.release())...)
}

// close ends the rings.
func (c *Capture) close() error {
	var errs []error
	for _, r := range c.rings {
		if r != nil {
			errs = append(errs, r.close())
		}
	}
	return errors.Join(errs...)
}

// release gives everything back. The rings have ended.
func (c *Capture) release() error {
	err := c.close()
	for _, r := range c.rings {
		if r != nil {
			err = errors.Join(err, r.unmap())
		}
	}
	return err
}
