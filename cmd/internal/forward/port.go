package forward

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Port is a port of this machine that is one of a host in the cluster.
type Port struct {
	Listen netip.AddrPort // port 0 = any that is free
	Host   string
	Port   uint16
}

// String is the destination.
func (p Port) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// ParsePort reads [[ADDRESS:]PORT:]HOST:PORT. Without a port of this machine it is
// the host's; 0 is any that is free. IPv6 addresses stand in brackets.
func ParsePort(text string) (Port, error) {
	wrong := fmt.Errorf("%q is not PORT:HOST:PORT, like 5432:db:5432", text)
	head, last, ok := cutLast(text)
	port, err := strconv.ParseUint(last, 10, 16)
	if !ok || err != nil || port == 0 {
		return Port{}, wrong
	}
	p := Port{Port: uint16(port)}
	local, host, ok := cutLast(head)
	if !ok {
		local, host = strconv.Itoa(int(port)), head
	}
	p.Host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if p.Host == "" || strings.ContainsAny(p.Host, "/@ []") {
		return Port{}, wrong
	}
	if p.Listen, err = ParseListen(local); err != nil {
		return Port{}, wrong
	}
	return p, nil
}

// cutLast cuts at the last colon that is not inside brackets.
func cutLast(s string) (before, after string, ok bool) {
	inside := false
	for i := len(s) - 1; i >= 0; i-- {
		switch {
		case s[i] == ']':
			inside = true
		case s[i] == '[':
			inside = false
		case s[i] == ':' && !inside:
			return s[:i], s[i+1:], true
		}
	}
	return "", s, false
}

// ParseListen reads [ADDRESS:]PORT; the address is one of loopback, 127.0.0.1 if it
// is left out.
func ParseListen(text string) (netip.AddrPort, error) {
	wrong := fmt.Errorf("%q is not a port of this machine's loopback", text)
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	host, last, ok := cutLast(text)
	if ok {
		var err error
		if host == "localhost" {
			host = addr.String()
		}
		if addr, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err != nil || !addr.IsLoopback() {
			return netip.AddrPort{}, wrong
		}
	}
	port, err := strconv.ParseUint(last, 10, 16)
	if err != nil {
		return netip.AddrPort{}, wrong
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}
