package agent

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// acceptedBy finds the other end of a connection from local in this network
// namespace: the socket whose peer is local. Only a connection that a rule of
// the namespace has redirected to one of its own listeners has one. The zero
// netip.AddrPort says that there is none; uid is the owner's, or -1 when the
// owner has not accepted it yet or has closed it.
func acceptedBy(local netip.AddrPort) (at netip.AddrPort, uid int64, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return at, -1, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	// The kernel answers at once; the timeout is for one that does not at all.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		return at, -1, os.NewSyscallError("setsockopt", err)
	}
	// A listener for both families accepts IPv4 with a socket of IPv6.
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if family == unix.AF_INET && local.Addr().Is6() {
			continue
		}
		if at, uid, err = dump(fd, family, local); err != nil || at.IsValid() {
			return at, uid, err
		}
	}
	return netip.AddrPort{}, -1, nil
}

// Sizes and numbers of sock_diag(7), linux/inet_diag.h.
const (
	diagRequestLen = 56 // struct inet_diag_req_v2
	diagMessageLen = 72 // struct inet_diag_msg
	diagBytecode   = 1  // INET_DIAG_REQ_BYTECODE
	diagPeerGE     = 4  // INET_DIAG_BC_D_GE
	diagPeerLE     = 5  // INET_DIAG_BC_D_LE
	// connected is all states but LISTEN and TIME_WAIT: a connection that is over
	// may have had the same port.
	connected = ^uint32(1<<10 | 1<<6)
)

// dump asks for the sockets of a family whose peer has local's port, and
// returns the one whose peer is local.
func dump(fd int, family byte, local netip.AddrPort) (netip.AddrPort, int64, error) {
	if err := unix.Sendto(fd, diagRequest(family, local.Port()), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return netip.AddrPort{}, -1, os.NewSyscallError("sendto", err)
	}
	var found netip.AddrPort
	uid := int64(-1)
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return netip.AddrPort{}, -1, os.NewSyscallError("recvfrom", err)
		}
		for msgs := buf[:n]; len(msgs) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(msgs))
			if size < unix.SizeofNlMsghdr || size > len(msgs) {
				return netip.AddrPort{}, -1, fmt.Errorf("sock_diag: message of %d bytes in %d", size, len(msgs))
			}
			body := msgs[unix.SizeofNlMsghdr:size]
			switch binary.NativeEndian.Uint16(msgs[4:]) {
			case unix.NLMSG_DONE:
				return found, uid, nil
			case unix.NLMSG_ERROR:
				if len(body) < 4 {
					return netip.AddrPort{}, -1, fmt.Errorf("sock_diag: short error")
				}
				return netip.AddrPort{}, -1, os.NewSyscallError("sock_diag", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
			default:
				if at, peer, owner, ok := diagSocket(body); ok && peer == local {
					found, uid = at, owner
				}
			}
			msgs = msgs[min((size+3)&^3, len(msgs)):]
		}
	}
}

// diagRequest returns a netlink message that asks for all TCP sockets of a
// family whose peer has the port: few of what may be many thousands.
func diagRequest(family byte, port uint16) []byte {
	order := binary.NativeEndian
	msg := make([]byte, unix.SizeofNlMsghdr+diagRequestLen, 128)
	order.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req := msg[unix.SizeofNlMsghdr:]
	req[0], req[1] = family, unix.IPPROTO_TCP
	order.PutUint32(req[4:], connected)

	// Two comparisons, each an op and its operand: code, how far to jump on yes,
	// how far on no (past the end rejects); the operand is where "no" stands.
	const ops = 16
	attr := make([]byte, 4, 4+ops)
	order.PutUint16(attr, 4+ops)
	order.PutUint16(attr[2:], diagBytecode)
	for i, code := range []byte{diagPeerGE, diagPeerLE} {
		attr = append(attr, code, 8)
		attr = order.AppendUint16(attr, uint16(ops-8*i+4))
		attr = order.AppendUint16(append(attr, 0, 0), port)
	}
	msg = append(msg, attr...)
	order.PutUint32(msg, uint32(len(msg)))
	return msg
}

// diagSocket parses a struct inet_diag_msg.
func diagSocket(b []byte) (local, peer netip.AddrPort, uid int64, ok bool) {
	if len(b) < diagMessageLen {
		return local, peer, -1, false
	}
	addr := func(ip []byte) netip.Addr {
		if b[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(ip[:4]))
		}
		return netip.AddrFrom16([16]byte(ip)).Unmap()
	}
	local = netip.AddrPortFrom(addr(b[8:24]), binary.BigEndian.Uint16(b[4:]))
	peer = netip.AddrPortFrom(addr(b[24:40]), binary.BigEndian.Uint16(b[6:]))
	uid = int64(binary.NativeEndian.Uint32(b[64:]))
	if inode := binary.NativeEndian.Uint32(b[68:]); inode == 0 {
		uid = -1 // nobody's: not accepted yet, or closed
	}
	return local, peer, uid, true
}

// localAddr returns the address of c's own end.
func localAddr(c net.Conn) netip.AddrPort {
	a := c.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
