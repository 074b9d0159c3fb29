package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Readdress gives the session other addresses of its own. Sockets that were bound or
// connected from those that go are aborted; listeners on all addresses stay.
func (h *Helper) Readdress(ctx context.Context, addrs []netip.Addr) error {
	if err := checkAddrs(addrs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	h.orders.Lock()
	defer h.orders.Unlock()
	stop := context.AfterFunc(ctx, func() { h.ctl.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() {
			return
		}
		h.ctl.SetDeadline(time.Time{}) // for the next order, after an answer that is late
	}()
	if err := sendControl(h.ctl, setup{Addrs: addrs}, -1); err != nil {
		return h.startError(ctx, err)
	}
	var r ready
	fd, err := recvControl(h.ctl, &r)
	if err != nil {
		return h.startError(ctx, err)
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	for _, w := range r.Warnings {
		h.logger.Warn("session namespace is not complete", "err", w)
	}
	if r.Failure != nil {
		return fmt.Errorf("change addresses of session namespace: %w", r.Failure)
	}
	h.logger.Info("session namespace has other addresses", "addrs", addrs)
	return nil
}

// readdress does what Helper.Readdress asks. The new addresses come first, so that
// the device is never without a route.
func readdress(addrs []netip.Addr) (warnings []string, err error) {
	if err := checkAddrs(addrs); err != nil {
		return nil, err
	}
	dev, err := netlink.LinkByName(deviceName)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", deviceName, err)
	}
	have, err := netlink.AddrList(dev, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", deviceName, err)
	}
	if hasFamily(addrs, netip.Addr.Is6) {
		// The first addresses may have been without IPv6, which was switched off then.
		if warnings, err = applySysctls(true); err != nil {
			return warnings, err
		}
	}
	var old []netip.Addr
	for _, h := range have {
		if a, ok := netip.AddrFromSlice(h.IP); ok {
			old = append(old, a.Unmap())
		}
	}
	for _, a := range addrs {
		if slices.Contains(old, a) {
			continue
		}
		if err := addAddress(dev, a); err != nil {
			return warnings, err
		}
		if err := awaitLocal(a); err != nil {
			return warnings, err
		}
	}
	return warnings, dropAddresses(dev, slices.DeleteFunc(old, func(a netip.Addr) bool { return slices.Contains(addrs, a) }))
}

// dropAddresses takes addresses from the device and aborts the sockets that have them.
func dropAddresses(dev netlink.Link, addrs []netip.Addr) error {
	var errs []error
	for _, a := range addrs {
		err := netlink.AddrDel(dev, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("delete address %v: %w", a, err))
		}
	}
	if diag, err := openDiag(); err == nil {
		_ = abort(diag, func(a netip.Addr) bool { return slices.Contains(addrs, a) }) // what the kernel cannot abort ends with its timers
		unix.Close(diag)
	}
	return errors.Join(errs...)
}
