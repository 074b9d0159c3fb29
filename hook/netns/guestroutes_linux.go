package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestDevice is the packet device of a container, which has interfaces of its
// own: eth0 is that of its engine.
const guestDevice = "pod0"

// A guest's namespace has routes of its engine's, and the engine changes them when
// the container joins another network. They stay as they are. Rules before them
// see to it that of these routes only those to the container's own networks
// count, and that everything else goes to the device, or nowhere.
const (
	replyPref   = 80 // what is sent from an address of the engine's goes the engine's way
	nearPref    = 90 // the container's own networks
	sessionPref = 100

	sessionTable = 200
	replyTable   = 201 // and the next ones, one per interface

	// lastMetric is that of the route that stays when the device has gone.
	lastMetric = 1 << 16
)

// configureGuest gives the device its addresses and the namespace its rules. It
// returns the networks that the namespace is in by itself.
func configureGuest(s setup) (nets []netip.Prefix, warnings []string, err error) {
	dev, err := netlink.LinkByName(guestDevice)
	if err != nil {
		return nil, nil, fmt.Errorf("find %s: %w", guestDevice, err)
	}
	if err := netlink.LinkSetMTU(dev, s.MTU); err != nil {
		return nil, nil, fmt.Errorf("set MTU of %s: %w", guestDevice, err)
	}
	if err := netlink.LinkSetTxQLen(dev, queueLen); err != nil {
		return nil, nil, fmt.Errorf("set queue length of %s: %w", guestDevice, err)
	}
	if err := netlink.LinkSetUp(dev); err != nil {
		return nil, nil, fmt.Errorf("set %s up: %w", guestDevice, err)
	}
	if nets, err = returnReplies(dev); err != nil {
		return nil, nil, err
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err := preferSession(family); err != nil {
			return nil, nil, err
		}
	}
	for _, a := range s.Addrs {
		err := addOwnAddress(dev, a)
		if err == nil {
			err = addDefaultRoute(dev, a, sessionTable)
		}
		switch {
		case err == nil:
			err = awaitLocal(a)
		case a.Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP)):
			// Its engine keeps IPv6 out of the container.
			warnings = append(warnings, err.Error())
			err = nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return nets, warnings, awaitRunning(guestDevice)
}

// preferSession adds the rules of a family, and the route that keeps packets from
// leaving by the engine's network when the session's device is not there.
func preferSession(family int) error {
	nowhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == unix.AF_INET6 {
		nowhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(nowhere), Table: sessionTable, Type: unix.RTN_UNREACHABLE, Priority: lastMetric})
	if err == nil {
		near := netlink.NewRule()
		near.Family, near.Table, near.Priority, near.SuppressPrefixlen = family, unix.RT_TABLE_MAIN, nearPref, 0
		err = netlink.RuleAdd(near)
	}
	if err == nil {
		all := netlink.NewRule()
		all.Family, all.Table, all.Priority = family, sessionTable, sessionPref
		err = netlink.RuleAdd(all)
	}
	if family == unix.AF_INET6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP)) {
		return nil // there is no IPv6 here: nothing leaves by it
	}
	if err != nil {
		return fmt.Errorf("route everything to %s: %w", guestDevice, err)
	}
	return nil
}

// returnReplies lets what comes in by the engine's networks, as through a
// published port, be answered the way it came. It returns these networks.
func returnReplies(dev netlink.Link) ([]netip.Prefix, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var nets []netip.Prefix
	table := replyTable
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 || l.Attrs().Index == dev.Attrs().Index || l.Attrs().Name == outerName {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addrs {
			p, ok := prefixOf(a.IPNet)
			if !ok || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			nets = append(nets, p.Masked())
			if err := returnBy(l, p, table); err != nil {
				return nil, err
			}
		}
		table++
	}
	return nets, nil
}

// returnBy sends what has the address own by the interface that has it.
func returnBy(l netlink.Link, own netip.Prefix, table int) error {
	family := unix.AF_INET
	if own.Addr().Is6() {
		family = unix.AF_INET6
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", l.Attrs().Name, err)
	}
	for _, r := range routes {
		if r.Gw == nil {
			continue
		}
		back := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(everything(own.Addr())), Gw: r.Gw, Table: table, Flags: int(netlink.FLAG_ONLINK)}
		if err := netlink.RouteReplace(back); err != nil {
			return fmt.Errorf("route replies by %s: %w", l.Attrs().Name, err)
		}
	}
	near := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(own.Masked()), Table: table, Scope: netlink.SCOPE_LINK}
	if own.Addr().Is6() {
		near.Scope = netlink.SCOPE_UNIVERSE
	}
	if err := netlink.RouteReplace(near); err != nil {
		return fmt.Errorf("route replies by %s: %w", l.Attrs().Name, err)
	}
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = family, table, replyPref
	rule.Src = ipNet(netip.PrefixFrom(own.Addr(), own.Addr().BitLen()))
	if err := netlink.RuleAdd(rule); err != nil {
		return fmt.Errorf("route replies by %s: %w", l.Attrs().Name, err)
	}
	return nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok
}
