package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	inwardTable = 100 // local routes for packets that come from the device
	inwardPref  = 50

	settleTimeout = 5 * time.Second
)

// configure gives the namespace its addresses and routes. The order matters: the
// route of 127/8 to the device takes 127.0.0.1 as its source, which the kernel
// accepts only while the local table still has it.
func configure(s setup) (warnings []string, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("set lo up: %w", err)
	}
	dev, err := netlink.LinkByName(deviceName)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", deviceName, err)
	}
	v6 := hasFamily(s.Addrs, netip.Addr.Is6)
	if warnings, err = applySysctls(v6); err != nil {
		return warnings, err
	}
	if err := netlink.LinkSetMTU(dev, s.MTU); err != nil {
		return warnings, fmt.Errorf("set MTU of %s: %w", deviceName, err)
	}
	if err := netlink.LinkSetTxQLen(dev, queueLen); err != nil {
		return warnings, fmt.Errorf("set queue length of %s: %w", deviceName, err)
	}
	if err := netlink.LinkSetUp(dev); err != nil {
		return warnings, fmt.Errorf("set %s up: %w", deviceName, err)
	}
	for _, a := range s.Addrs {
		if err := addAddress(dev, a); err != nil {
			return warnings, err
		}
	}
	if err := divertLoopback(lo, dev); err != nil {
		return warnings, err
	}
	if err := awaitRunning(deviceName); err != nil {
		return warnings, err
	}
	for _, a := range s.Addrs {
		if err := awaitLocal(a); err != nil {
			return warnings, err
		}
	}
	return warnings, nil
}

// awaitRunning waits until an interface that was set up forwards packets. The
// kernel notices the carrier of a veth pair a moment after both ends are up, and
// until then its queue drops everything.
func awaitRunning(name string) error {
	return await(name+" to run", func() (bool, error) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return false, err
		}
		return l.Attrs().RawFlags&unix.IFF_RUNNING != 0, nil
	})
}

// awaitLocal waits until packets to the address are accepted. The kernel adds the
// local route of an IPv6 address from a work queue.
func awaitLocal(a netip.Addr) error {
	return await(a.String()+" to be local", func() (bool, error) {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err != nil {
			return false, err
		}
		return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, nil
	})
}

// await asks every millisecond: nothing announces all of these states.
func await(what string, reached func() (bool, error)) error {
	limit := time.Now().Add(settleTimeout)
	for {
		ok, err := reached()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if ok {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("wait for %s: %w", what, unix.ETIMEDOUT)
		}
		time.Sleep(time.Millisecond)
	}
}

func hasFamily(addrs []netip.Addr, is func(netip.Addr) bool) bool {
	for _, a := range addrs {
		if is(a) {
			return true
		}
	}
	return false
}

// addAddress gives the device a session address and the default route from it.
func addAddress(dev netlink.Link, a netip.Addr) error {
	if err := addOwnAddress(dev, a); err != nil {
		return err
	}
	return addDefaultRoute(dev, a, unix.RT_TABLE_MAIN)
}

func addOwnAddress(dev netlink.Link, a netip.Addr) error {
	host := netip.PrefixFrom(a, a.BitLen())
	addr := &netlink.Addr{IPNet: ipNet(host)}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(dev, addr); err != nil {
		return fmt.Errorf("add address %v: %w", host, err)
	}
	return nil
}

// addDefaultRoute routes everything of a's family to the device, from a.
func addDefaultRoute(dev netlink.Link, a netip.Addr, table int) error {
	r := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: ipNet(everything(a)), Src: a.AsSlice(), Scope: netlink.SCOPE_LINK, Table: table}
	if a.Is6() {
		r.Scope = netlink.SCOPE_UNIVERSE
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("set default route from %v: %w", a, err)
	}
	return nil
}

// everything is all addresses of a's family.
func everything(a netip.Addr) netip.Prefix {
	if a.Is6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// divertLoopback sends 127/8 to the device, while packets that come from the
// device still find 127/8 local. ::1 stays on lo: the kernel drops it anywhere else.
func divertLoopback(lo, dev netlink.Link) error {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	out := &netlink.Route{
		LinkIndex: dev.Attrs().Index, Dst: ipNet(loopback),
		Src: net.IPv4(127, 0, 0, 1), Scope: netlink.SCOPE_LINK,
	}
	if err := netlink.RouteAdd(out); err != nil {
		return fmt.Errorf("route %v to %s: %w", loopback, deviceName, err)
	}
	in := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: ipNet(loopback),
		Table: inwardTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	}
	if err := netlink.RouteAdd(in); err != nil {
		return fmt.Errorf("add inward route of %v: %w", loopback, err)
	}
	rule := netlink.NewRule()
	rule.Family = unix.AF_INET
	rule.IifName = deviceName
	rule.Table = inwardTable
	rule.Priority = inwardPref
	if err := netlink.RuleAdd(rule); err != nil {
		return fmt.Errorf("add inward rule: %w", err)
	}
	local, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list local routes: %w", err)
	}
	for _, r := range local {
		if r.Dst == nil || !r.Dst.IP.IsLoopback() {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete local route %v: %w", r.Dst, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// sysctl is one setting below /proc/sys/net.
type sysctl struct {
	name, value string
	required    bool // without it the laptop's loopback cannot be reached
}

// applySysctls writes the settings of the namespace. A container may mount /proc/sys
// read-only; what is not required then only costs the comfort named in the warning.
func applySysctls(v6 bool) (warnings []string, err error) {
	noIPv6 := "1"
	if v6 {
		noIPv6 = "0"
	}
	list := []sysctl{
		{"ipv4/conf/all/route_localnet", "1", true},
		{"ipv4/conf/" + deviceName + "/route_localnet", "1", true},
		// The host's defaults are inherited; replies from 127/8 come in on the device.
		{"ipv4/conf/all/rp_filter", "0", false},
		{"ipv4/conf/" + deviceName + "/rp_filter", "0", false},
		// A bind to an address of the laptop succeeds.
		{"ipv4/ip_nonlocal_bind", "1", false},
		{"ipv6/ip_nonlocal_bind", "1", false},
		// The one group of this user namespace may ping, and :80 is free.
		{"ipv4/ping_group_range", "0 0", false},
		{"ipv4/ip_unprivileged_port_start", "0", false},
		// Outside the default range of the laptop, so that ports seen there do not clash.
		{"ipv4/ip_local_port_range", fmt.Sprintf("%d 65535", FirstAutoPort), false},
		// Only the pod's addresses: programs ask for AAAA records only if the pod
		// has IPv6 (AI_ADDRCONFIG counts link-local addresses too).
		{"ipv6/conf/" + deviceName + "/addr_gen_mode", "1", false},
		{"ipv6/conf/" + deviceName + "/accept_ra", "0", false},
		{"ipv6/conf/" + deviceName + "/disable_ipv6", noIPv6, v6},
	}
	for _, s := range list {
		err := writeSysctl(s.name, s.value)
		switch {
		case err == nil:
		case s.required:
			return warnings, err
		case !os.IsNotExist(err):
			warnings = append(warnings, err.Error())
		}
	}
	return warnings, nil
}

// writeSysctl sets a value below /proc/sys/net, which is the namespace of the
// thread that opens it.
func writeSysctl(name, value string) error {
	f, err := os.OpenFile("/proc/sys/net/"+name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
