package supervisor

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
)

// borrow returns a duplicate of a descriptor of the thread pid: the same open
// file, under a number of ours. It needs no right but that to debug the thread.
func borrow(pid, fd int) (int, error) {
	p, err := pidfd(pid)
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	dup, err := unix.PidfdGetfd(p, fd, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_getfd", err)
	}
	return dup, nil
}

// pidfd opens the thread pid, or, before Linux 6.9, its process: threads share
// their descriptors but for rare ones.
func pidfd(pid int) (int, error) {
	const thread = unix.O_EXCL // PIDFD_THREAD
	for _, flags := range []int{0, thread} {
		if p, err := unix.PidfdOpen(pid, flags); err == nil {
			return p, nil
		}
	}
	leader, _, err := lineage(pid)
	if err != nil {
		return -1, err
	}
	p, err := unix.PidfdOpen(leader, 0)
	return p, os.NewSyscallError("pidfd_open", err)
}

// socketFacts is what a borrowed socket tells about itself.
type socketFacts struct {
	domain, typ, proto int
	cookie             uint64 // SO_COOKIE: no other socket ever has it
	namespace          uint64 // SO_NETNS_COOKIE
	ino                uint64
	listening          bool
	name               unix.Sockaddr
	at                 netip.AddrPort // name, mapped addresses as IPv4
}

// factsOf describes an IPv4 or IPv6 socket. ok is false for anything else.
func factsOf(fd int) (f socketFacts, ok bool) {
	var err error
	if f.domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return f, false // not a socket
	}
	if f.domain != unix.AF_INET && f.domain != unix.AF_INET6 {
		return f, false
	}
	var st unix.Stat_t
	var errs [6]error
	f.typ, errs[0] = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	f.proto, errs[1] = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	f.cookie, errs[2] = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	f.namespace, errs[3] = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	f.name, errs[4] = unix.Getsockname(fd)
	errs[5] = unix.Fstat(fd, &st)
	if errors.Join(errs[:]...) != nil {
		return f, false
	}
	accepts, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	f.listening, f.ino, f.at = accepts != 0, st.Ino, farend.AddrPort(f.name)
	return f, true
}

// stream reports whether the socket is TCP's, or MPTCP's.
func (f *socketFacts) stream() bool { return f.typ == unix.SOCK_STREAM }

// namespaceCookie is SO_NETNS_COOKIE of this process's sockets, 0 before Linux 5.14.
func namespaceCookie() uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return c
}
