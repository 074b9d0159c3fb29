package supervisor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// loopback is the device that host sockets for ::1 are bound to: whatever the
// program does with one later, nothing of it leaves the machine.
const loopback = "lo"

// connect answers connect(2) to anything but an IPv4 address: it refuses name
// services, and gives a socket for ::1 the laptop's namespace. Everything else the
// kernel does, with the socket as it is.
func (s *supervisor) connect(n *notification, c trap) verdict {
	var buf [sizeofSockaddrStorage]byte
	size := uint32(c.args[2])
	if size < 2 || size > sizeofSockaddrStorage {
		return leave(nil)
	}
	m, err := readMemory(int(n.Pid), c.args[1], buf[:size])
	if err != nil {
		return leave(err)
	}
	if !s.alive(n) {
		return leave(unix.ENOENT)
	}
	sa := buf[:m]
	if m < 2 {
		return leave(nil)
	}
	switch family(sa) {
	case afUnix:
		return s.connectUnix(n, sa)
	case afInet6:
		dst, ok := parseSockaddr(sa)
		if !ok {
			return leave(nil)
		}
		return s.connectInet6(n, int(int32(c.args[0])), dst)
	}
	return leave(nil)
}

// connectUnix refuses the sockets of name services that resolve names by
// themselves, outside the session: without them libc asks DNS, from its own socket.
func (s *supervisor) connectUnix(n *notification, sa []byte) verdict {
	p, ok := unixPath(sa)
	switch {
	case !ok:
		return leave(nil)
	case resolvesNames(p), path.Base(p) == systemBus && asksResolved(int(n.Pid)):
		return fail(unix.ENOENT, fmt.Errorf("connect to %s", p))
	case s.connecting == nil:
		return leave(nil)
	}
	first := s.connecting(p)
	if first == nil {
		return leave(nil)
	}
	return wait(func() verdict { first(); return leave(nil) })
}

// connectInet6 puts the socket where the destination is. ::1 cannot be routed out
// of the session's namespace as 127/8 is: the kernel takes it from no device but lo.
func (s *supervisor) connectInet6(n *notification, fd int, dst netip.AddrPort) verdict {
	dup, err := borrow(int(n.Pid), fd)
	if err != nil {
		return leave(err) // not dumpable: its ::1 is the session's own
	}
	defer unix.Close(dup)
	f, ok := factsOf(dup)
	if !ok || s.namespace == 0 {
		return leave(nil)
	}
	toLaptop := dst.Addr().Is6() && (dst.Addr().IsLoopback() || dst.Addr().IsUnspecified())
	away := f.namespace == s.namespace
	switch {
	case toLaptop == away:
		return leave(nil)
	case away && !wasSwapped(dup): // the program brought it along
		return leave(nil)
	case f.typ != unix.SOCK_STREAM && f.typ != unix.SOCK_DGRAM, f.stream() && inUse(dup):
		return leave(nil)
	}
	who, err := s.tree.of(int(n.Pid), s.identity)
	if err != nil {
		return fail(errnoOf(err), err)
	}
	if slices.Contains(who.Addrs, f.at.Addr()) {
		return leave(nil) // bound to the pod's address: ::1 is out of its reach
	}
	if at, err := s.home.contains(int(n.Pid), f.domain); !at {
		return leave(err)
	}
	if toLaptop && f.stream() && slices.Contains(who.Remote, dst.Port()) {
		return fail(unix.ECONNREFUSED, nil) // localhost is tried as 127.0.0.1 next
	}
	sockets := who.Sockets
	if toLaptop {
		sockets = laptopSockets{}
	}
	fresh, err := counterpart(dup, f, sockets)
	if err != nil {
		return fail(errnoOf(err), err)
	}
	defer unix.Close(fresh)
	if err := s.replace(n, f.ino, fresh); err != nil {
		return fail(errnoOf(err), err)
	}
	return leave(nil)
}

// laptopSockets makes sockets of the laptop that nothing leaves it by.
type laptopSockets struct{}

// Socket implements Sockets.
func (laptopSockets) Socket(domain, typ, proto int) (int, error) {
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, loopback); err != nil {
		unix.Close(fd)
		return -1, errors.Join(unix.ENETUNREACH, err)
	}
	return fd, nil
}

// counterpart makes a socket like f.
func counterpart(dup int, f socketFacts, sockets Sockets) (int, error) {
	fresh, err := sockets.Socket(f.domain, f.typ, f.proto)
	if err != nil {
		return -1, err
	}
	copyOptions(dup, fresh)
	if f.at.Port() != 0 {
		// The port that the program knows, if it is free there too. One that it
		// asked for by address it must have.
		if err := unix.Bind(fresh, f.name); err != nil && !f.at.Addr().IsUnspecified() {
			unix.Close(fresh)
			return -1, err
		}
	}
	return fresh, nil
}

// wasSwapped reports whether a host socket is one that counterpart made.
func wasSwapped(fd int) bool {
	dev, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	return err == nil && dev == loopback
}

// inUse reports whether a stream is connected, about to be, or was.
func inUse(fd int) bool {
	const stateClose = 7 // TCP_CLOSE
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State != stateClose
}

// unixPath returns the file that a socket address names (unix(7)).
func unixPath(sa []byte) (string, bool) {
	if len(sa) < 3 || binary.LittleEndian.Uint16(sa) != afUnix || sa[2] == 0 {
		return "", false
	}
	p := sa[2:]
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return string(p), true
}

// resolvesNames reports whether a name service listens at the path p: nscd,
// systemd-resolved's varlink interface, which nss-resolve uses, or Avahi, which
// nss-mdns has ask the laptop's network.
func resolvesNames(p string) bool {
	p = path.Clean(p)
	if rest, ok := strings.CutPrefix(p, "/var/run/"); ok {
		p = "/run/" + rest
	}
	return p == "/run/nscd/socket" || p == "/run/avahi-daemon/socket" || strings.HasPrefix(p, "/run/systemd/resolve/")
}

// systemBus is the name of D-Bus's socket. What else is on the bus is of use to programs of
// a session, so it is not refused to all of them.
const systemBus = "system_bus_socket"

// asksResolved reports whether a process runs resolvectl, also by its older names: what it
// has systemd-resolved resolve, over D-Bus, are the laptop's names.
func asksResolved(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && path.Base(exe) == "resolvectl"
}
