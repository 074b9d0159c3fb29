package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Sizes and places of struct inet_diag_req_v2 and inet_diag_msg, linux/inet_diag.h.
const (
	diagRequestLen = 56
	diagMessageLen = 72
	diagSockID     = 8  // of the socket's id in the request
	diagUID        = 64 // of the owner in the answer
	diagInode      = 68
)

// ownerOf returns the uid of who has the TCP socket at local that is connected to
// peer, both in this network namespace.
func ownerOf(local, peer netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, os.NewSyscallError("socket NETLINK_SOCK_DIAG", err)
	}
	defer unix.Close(fd)
	// The kernel answers at once; the timeout is for one that does not at all.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500_000}); err != nil {
		return 0, os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	if err := unix.Sendto(fd, diagRequest(local, peer), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sock_diag", err)
	}
	buf := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, os.NewSyscallError("sock_diag", err)
	}
	return parseOwner(buf[:n])
}

// diagRequest asks for the one TCP socket that has both addresses.
func diagRequest(local, peer netip.AddrPort) []byte {
	order := binary.NativeEndian
	msg := make([]byte, unix.SizeofNlMsghdr+diagRequestLen)
	order.PutUint32(msg, uint32(len(msg)))
	order.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	req := msg[unix.SizeofNlMsghdr:]
	req[0], req[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if local.Addr().Is4() {
		req[0] = unix.AF_INET
	}
	order.PutUint32(req[4:], ^uint32(0)) // any state
	id := req[diagSockID:]
	binary.BigEndian.PutUint16(id, local.Port())
	binary.BigEndian.PutUint16(id[2:], peer.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], peer.Addr().AsSlice())
	order.PutUint64(id[40:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return msg
}

// parseOwner reads the answer.
func parseOwner(msg []byte) (int, error) {
	order := binary.NativeEndian
	if len(msg) < unix.SizeofNlMsghdr+4 {
		return 0, errors.New("sock_diag: short answer")
	}
	body := msg[unix.SizeofNlMsghdr:]
	switch kind := order.Uint16(msg[4:]); {
	case kind == unix.NLMSG_ERROR:
		errno := unix.Errno(-int32(order.Uint32(body)))
		if errno == unix.ENOENT {
			return 0, errNobody
		}
		return 0, os.NewSyscallError("sock_diag", errno)
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(body) < diagMessageLen:
		return 0, fmt.Errorf("sock_diag: answer %d of %d bytes", kind, len(body))
	}
	// A socket that was closed already has no inode; older kernels say uid 0 then.
	uid, inode := order.Uint32(body[diagUID:]), order.Uint32(body[diagInode:])
	if inode == 0 && uid == 0 {
		return 0, errNobody
	}
	return int(uid), nil
}
