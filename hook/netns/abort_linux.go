package netns

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	sockDestroy   = 21 // linux/sock_diag.h
	sizeofDiagID  = 48 // struct inet_diag_sockid
	offMsgID      = 4  // of it in struct inet_diag_msg
	offReqID      = 8  // of it in struct inet_diag_req_v2
	allDiagStates = ^uint32(0)
)

// openDiag opens a socket by which abortAll can end those of this namespace, from
// anywhere: it stays the namespace's when its helper has gone.
func openDiag() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, nil
}

// abortAll ends every TCP and UDP socket of the namespace of fd.
func abortAll(fd int) error {
	return abort(fd, func(netip.Addr) bool { return true })
}

// abort ends the TCP and UDP sockets of the namespace of fd whose own address is
// one of ours, as far as the kernel can (CONFIG_INET_DIAG_DESTROY): a program that waits on one gets
// ECONNABORTED now, instead of what its kernel's timers say in two minutes.
func abort(fd int, ours func(netip.Addr) bool) error {
	limit := unix.Timeval{Sec: 1}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []flow.Proto{flow.TCP, flow.UDP} {
			var found [][]byte
			err := dump(fd, diagRequest(sockDiagByFamily, family, proto, allDiagStates), func(msg []byte) {
				if p, ok := parsePort(msg, proto); ok && ours(p.At.Addr()) {
					found = append(found, append([]byte(nil), msg[offMsgID:offMsgID+sizeofDiagID]...))
				}
			})
			if err != nil {
				return err
			}
			for _, id := range found {
				req := diagRequest(sockDestroy, family, proto, allDiagStates)
				binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
				copy(req[unix.NLMSG_HDRLEN+offReqID:], id)
				if err := dump(fd, req, func([]byte) {}); err == unix.EOPNOTSUPP {
					return err
				} // any other error: it has gone by itself
			}
		}
	}
	return nil
}
