package supervisor

import "golang.org/x/sys/unix"

// option is a socket option whose value is an int.
type option struct{ level, name int }

// carriedOptions are those that a program may have set before it listens or
// connects, and that decide how the socket behaves then.
var carriedOptions = []option{
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, // before bind(2)
	{unix.SOL_SOCKET, unix.SO_REUSEADDR},
	{unix.SOL_SOCKET, unix.SO_REUSEPORT},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_BROADCAST},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT},
	{unix.IPPROTO_IP, unix.IP_TOS},
	{unix.IPPROTO_IP, unix.IP_TTL},
	{unix.IPPROTO_IP, unix.IP_PKTINFO},
	{unix.IPPROTO_IP, unix.IP_RECVERR},
	{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG},
	{unix.IPPROTO_TCP, unix.TCP_CORK},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_SYNCNT},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP},
	{unix.IPPROTO_TCP, unix.TCP_QUICKACK},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
}

// Bits of SO_BUF_LOCK: the program has set the size of a buffer itself.
const (
	sendBufferSet    = 1
	receiveBufferSet = 2
)

// copyOptions makes fresh, a socket of the same kind nobody has touched, behave as
// old does. An option is set only if it differs, so that defaults stay defaults;
// what one of the two kernels' sockets does not know is left out.
func copyOptions(old, fresh int) {
	for _, o := range carriedOptions {
		want, err := unix.GetsockoptInt(old, o.level, o.name)
		if err != nil {
			continue
		}
		if got, err := unix.GetsockoptInt(fresh, o.level, o.name); err == nil && got != want {
			_ = unix.SetsockoptInt(fresh, o.level, o.name, want)
		}
	}
	copyBuffers(old, fresh)
	if l, err := unix.GetsockoptLinger(old, unix.SOL_SOCKET, unix.SO_LINGER); err == nil && l.Onoff != 0 {
		_ = unix.SetsockoptLinger(fresh, unix.SOL_SOCKET, unix.SO_LINGER, l)
	}
	for _, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if tv, err := unix.GetsockoptTimeval(old, unix.SOL_SOCKET, name); err == nil && tv.Nano() != 0 {
			_ = unix.SetsockoptTimeval(fresh, unix.SOL_SOCKET, name, tv)
		}
	}
	if cc, err := unix.GetsockoptString(old, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil {
		if now, err := unix.GetsockoptString(fresh, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil && now != cc {
			_ = unix.SetsockoptString(fresh, unix.IPPROTO_TCP, unix.TCP_CONGESTION, cc)
		}
	}
	if flags, err := unix.FcntlInt(uintptr(old), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fresh), unix.F_SETFL, flags)
	}
}

// copyBuffers carries over sizes that the program chose. The kernel reports twice
// of what was asked for (socket(7)).
func copyBuffers(old, fresh int) {
	set, err := unix.GetsockoptInt(old, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil {
		return
	}
	for bit, name := range map[int]int{sendBufferSet: unix.SO_SNDBUF, receiveBufferSet: unix.SO_RCVBUF} {
		if size, err := unix.GetsockoptInt(old, unix.SOL_SOCKET, name); err == nil && set&bit != 0 {
			_ = unix.SetsockoptInt(fresh, unix.SOL_SOCKET, name, size/2)
		}
	}
}
