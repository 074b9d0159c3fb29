package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ICMP message types (RFC 792, RFC 4443).
const (
	icmpEchoReply     = 0
	icmpEchoRequest   = 8
	icmpv6EchoRequest = 128
	icmpv6EchoReply   = 129
	icmpEchoHeader    = 8 // bytes: type, code, checksum, identifier, sequence
)

// ListenEcho implements Network with a ping socket, which needs no capability
// but a group in net.ipv4.ping_group_range (icmp(7)).
func (Kernel) ListenEcho(dst netip.Addr) (Echoes, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if dst.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		if errors.Is(err, syscall.EACCES) {
			return nil, fmt.Errorf("ping socket: %w (the pod's sysctl net.ipv4.ping_group_range excludes the agent's group)", err)
		}
		return nil, os.NewSyscallError("socket ICMP", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close() // FilePacketConn duplicates it
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("ping socket: %w", err)
	}
	return &pingSocket{conn: pc.(*net.UDPConn), v6: dst.Is6()}, nil
}

// pingSocket is a kernel ping socket. The kernel fills in the identifier and
// checksum of requests and passes on only replies to them.
type pingSocket struct {
	conn *net.UDPConn
	v6   bool
}

func (p *pingSocket) Close() error { return p.conn.Close() }

func (p *pingSocket) Request(dst netip.Addr, seq uint16, payload []byte) error {
	msg := make([]byte, icmpEchoHeader, icmpEchoHeader+len(payload))
	msg[0] = icmpEchoRequest
	if p.v6 {
		msg[0] = icmpv6EchoRequest
	}
	binary.BigEndian.PutUint16(msg[6:], seq)
	_, err := p.conn.WriteToUDPAddrPort(append(msg, payload...), netip.AddrPortFrom(dst, 0))
	return err
}

func (p *pingSocket) Reply(buf []byte) (int, netip.Addr, uint16, error) {
	reply := byte(icmpEchoReply)
	if p.v6 {
		reply = icmpv6EchoReply
	}
	msg := make([]byte, icmpEchoHeader+len(buf))
	for {
		n, src, err := p.conn.ReadFromUDPAddrPort(msg)
		if isICMPError(err) {
			continue // reported by silence, as ping(8) does for an unprivileged user
		}
		if err != nil {
			return 0, netip.Addr{}, 0, err
		}
		if n < icmpEchoHeader || msg[0] != reply {
			continue
		}
		seq := binary.BigEndian.Uint16(msg[6:])
		return copy(buf, msg[icmpEchoHeader:n]), src.Addr().Unmap(), seq, nil
	}
}
