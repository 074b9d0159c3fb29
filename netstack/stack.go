package netstack

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Config describes a Stack.
type Config struct {
	// Name is for logs.
	Name string
	// MTU is the largest IP packet that leaves the stack; 0 means 65440.
	MTU int
	// Addrs are the stack's own addresses.
	Addrs []netip.Addr
	// Transparent accepts packets to any destination and lets conns use any
	// source.
	Transparent bool
	// Loopback accepts packets from and to 127/8 and ::1 from the link.
	Loopback bool
	// IPv6 enables IPv6 even if no address in Addrs is one.
	IPv6 bool
	// Logger is where the stack logs to; nil discards.
	Logger *slog.Logger
}

// A Stack is one IP host.
type Stack struct{}

// New makes a stack.
func New(cfg Config) (*Stack, error) { return nil, errors.ErrUnsupported }

// Close ends the stack: pending and later calls fail with net.ErrClosed.
func (s *Stack) Close() error { return net.ErrClosed }

// Deliver gives the stack one IP packet from the link. It copies pkt, never
// blocks, and may be called concurrently.
func (s *Stack) Deliver(pkt []byte) {}

// ReadPackets waits for packets that leave the stack and copies up to
// len(bufs) of them to bufs[i][offset:], their lengths to sizes[i]. It returns
// how many, and net.ErrClosed after Close.
func (s *Stack) ReadPackets(bufs [][]byte, sizes []int, offset int) (int, error) {
	return 0, net.ErrClosed
}

// DialTCP connects from src to dst. The zero src, or its zero address or port,
// lets the stack choose.
func (s *Stack) DialTCP(ctx context.Context, src, dst netip.AddrPort) (*TCPConn, error) {
	return nil, net.ErrClosed
}

// DialUDP returns a conn for datagrams between src and dst. The zero src, or
// its zero address or port, lets the stack choose.
func (s *Stack) DialUDP(src, dst netip.AddrPort) (net.Conn, error) { return nil, net.ErrClosed }

// ListenTCP listens on addr, on every address of the stack if its address is
// zero or unspecified.
func (s *Stack) ListenTCP(addr netip.AddrPort) (net.Listener, error) { return nil, net.ErrClosed }

// ForwardTCP calls h, in a goroutine of its own, for each SYN that matches no
// endpoint of the stack. At most maxInFlight requests are undecided at a time;
// SYNs beyond are dropped and counted. h must call Accept or Reject.
func (s *Stack) ForwardTCP(maxInFlight int, h func(*TCPRequest)) {}

// ForwardUDP calls h for each datagram that matches no endpoint of the stack,
// in the goroutine that delivers it: h must not block, and payload is valid
// only during the call.
func (s *Stack) ForwardUDP(h func(f flow.Flow, payload []byte)) {}

// SendUDP sends one datagram. It never blocks: a datagram that finds no room
// in the link is dropped, and the error is ENOBUFS.
func (s *Stack) SendUDP(src, dst netip.AddrPort, payload []byte) error { return net.ErrClosed }

// SendUnreachable tells f.Src that its datagram f did not reach f.Dst, by the
// ICMP error that makes its kernel report err's errno.
func (s *Stack) SendUnreachable(f flow.Flow, err error) error { return net.ErrClosed }

// An Echo is an ICMP or ICMPv6 echo request.
type Echo struct {
	Src, Dst netip.Addr
	ID, Seq  uint16
	Payload  []byte
}

// ForwardEcho calls h for each echo request to an address that is not the
// stack's own, in the goroutine that delivers it: h must not block, and
// Payload is valid only during the call.
func (s *Stack) ForwardEcho(h func(Echo)) {}

// SendEchoReply answers e, which is as ForwardEcho gave it: the reply goes
// from e.Dst to e.Src. It never blocks.
func (s *Stack) SendEchoReply(e Echo) error { return net.ErrClosed }

// Stats returns exact counters of the stack.
func (s *Stack) Stats() Stats { return Stats{} }

// Stats are exact counters of a Stack.
type Stats struct {
	// PacketsIn and BytesIn count what was delivered, PacketsOut and BytesOut
	// what was read.
	PacketsIn, BytesIn, PacketsOut, BytesOut uint64
}
