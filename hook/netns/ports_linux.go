package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/netstack/flow"
)

// inet_diag, linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	sizeofDiagReq    = 56
	sizeofDiagMsg    = 72
	diagSKV6Only     = 11 // INET_DIAG_SKV6ONLY

	stateClose  = 7 // of a UDP socket without a peer
	stateListen = 10
)

// Ports lists the ports of the session.
func (c *Client) Ports() ([]Port, error) {
	fd, err := c.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	limit := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	var out []Port
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		for _, q := range []struct {
			proto flow.Proto
			state uint
		}{{flow.TCP, stateListen}, {flow.UDP, stateClose}} {
			if out, err = dumpPorts(fd, family, q.proto, q.state, out); err != nil {
				return nil, fmt.Errorf("list ports of the session: %w", err)
			}
		}
	}
	return out, nil
}

// dumpPorts adds the sockets of one family and protocol in one state to out.
func dumpPorts(fd int, family byte, proto flow.Proto, state uint, out []Port) ([]Port, error) {
	err := dump(fd, diagRequest(sockDiagByFamily, family, proto, 1<<state), func(msg []byte) {
		if p, ok := parsePort(msg, proto); ok {
			out = append(out, p)
		}
	})
	return out, err
}

// diagRequest is a dump request: a netlink header and struct inet_diag_req_v2.
func diagRequest(kind uint16, family byte, proto flow.Proto, states uint32) []byte {
	req := make([]byte, unix.NLMSG_HDRLEN+sizeofDiagReq)
	binary.NativeEndian.PutUint32(req[0:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], kind)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = family, byte(proto)
	binary.NativeEndian.PutUint32(body[4:], states)
	return req
}

// dump makes a netlink request and hands on the body of each answer.
func dump(fd int, req []byte, each func([]byte)) error {
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if done, err := parseDump(buf[:n], each); done || err != nil {
			return err
		}
	}
}

// parseDump reads one datagram of netlink messages. done means that it was the last.
func parseDump(b []byte, each func([]byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, errors.New("malformed netlink message")
		}
		body := b[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errors.New("malformed netlink error")
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				return false, syscall.Errno(-code)
			}
			return true, nil // an acknowledgement
		case sockDiagByFamily:
			each(body)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// parsePort reads struct inet_diag_msg and its attributes.
func parsePort(b []byte, proto flow.Proto) (Port, bool) {
	if len(b) < sizeofDiagMsg {
		return Port{}, false
	}
	p := Port{Proto: proto, IPv6: b[0] == unix.AF_INET6}
	var a netip.Addr
	if p.IPv6 {
		a = netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	} else {
		a = netip.AddrFrom4([4]byte(b[8:12]))
	}
	p.At = netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[4:]))
	for attrs := b[sizeofDiagMsg:]; len(attrs) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < unix.SizeofRtAttr || size > len(attrs) {
			break
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == diagSKV6Only && size > unix.SizeofRtAttr {
			p.V6Only = attrs[unix.SizeofRtAttr] != 0
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return p, p.At.Port() != 0
}
