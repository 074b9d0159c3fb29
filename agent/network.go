package agent

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/borrownet/borrownet/netstack/relay"
)

// Network is the pod's network as programs in the pod see it. NewKernel
// returns the real one; a demonstration or a test may bring its own world.
// Its errors wrap the errno that the same call gets in the pod.
type Network interface {
	// DialTCP connects to dst.
	DialTCP(ctx context.Context, dst netip.AddrPort) (relay.Conn, error)
	// ListenUDP returns an unbound datagram socket of dst's address family.
	ListenUDP(dst netip.Addr) (Datagrams, error)
	// ListenEcho returns an ICMP echo socket of dst's address family.
	ListenEcho(dst netip.Addr) (Echoes, error)
	// Addrs lists the pod's addresses, without loopback and link-local ones.
	Addrs() ([]netip.Addr, error)
	// Resolv returns the text of the pod's resolv.conf(5).
	Resolv() (string, error)
}

// Datagrams is an unconnected UDP socket.
type Datagrams interface {
	WriteTo(payload []byte, dst netip.AddrPort) error
	// ReadFrom returns one datagram and its sender, or an *Unreachable error
	// for a datagram that the network gave back. After Close it returns
	// net.ErrClosed. A socket that also has WaitReadable() error needs buf only
	// once that has returned. One that has TrySend sends without waiting, or
	// reports that it would have to wait.
	ReadFrom(buf []byte) (n int, src netip.AddrPort, err error)
	Close() error
}

// Echoes is an ICMP echo ("ping") socket; its identifier is its own.
type Echoes interface {
	Request(dst netip.Addr, seq uint16, payload []byte) error
	// Reply returns the payload's length, sender and sequence number of one
	// echo reply. After Close it returns net.ErrClosed.
	Reply(buf []byte) (n int, src netip.Addr, seq uint16, err error)
	Close() error
}

// Unreachable reports that a datagram to Dst did not arrive, as an ICMP error
// said.
type Unreachable struct {
	Dst netip.AddrPort
	Err error // the errno
}

func (e *Unreachable) Error() string { return fmt.Sprintf("send to %s: %v", e.Dst, e.Err) }
func (e *Unreachable) Unwrap() error { return e.Err }
