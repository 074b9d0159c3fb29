package netstack

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/borrownet/borrownet/netstack/flow"
)

// maxDatagram is the biggest payload of UDP and of an ICMP echo over IPv4.
const maxDatagram = 65535 - header.IPv4MinimumSize - header.UDPMinimumSize

// ForwardUDP calls h for each datagram that matches no endpoint of the stack,
// in the goroutine that delivers it: h must not block, and payload is valid
// only during the call. Without ForwardUDP such datagrams are answered with
// port unreachable.
func (s *Stack) ForwardUDP(h func(f flow.Flow, payload []byte)) { s.onUDP.Store(&h) }

// handleUDP takes a datagram that matches no endpoint.
func (s *Stack) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	f := flow.Flow{
		Proto: flow.UDP,
		Src:   addrPortFrom(id.RemoteAddress, id.RemotePort),
		Dst:   addrPortFrom(id.LocalAddress, id.LocalPort),
	}
	forward := s.onUDP.Load()
	receive := s.receivers.of(f)
	if receive == nil && forward == nil {
		return false
	}
	udp := header.UDP(pkt.TransportHeader().Slice())
	data := pkt.Data()
	if len(udp) < header.UDPMinimumSize {
		return true
	}
	size := int(udp.Length()) - header.UDPMinimumSize
	if size < 0 || size > data.Size() {
		s.counts.malformed.Add(1)
		return true
	}
	payload, ok := data.PullUp(size)
	if !ok {
		return true
	}
	s.counts.udpIn.Add(1)
	if receive != nil {
		receive(payload, nil)
	} else {
		(*forward)(f, payload)
	}
	return true
}

// SendUDP sends one datagram. It never blocks: a datagram that finds no room
// in the link is dropped and counted, and the error is ENOBUFS.
func (s *Stack) SendUDP(src, dst netip.AddrPort, payload []byte) error {
	src, dst = unmap(src), unmap(dst)
	if err := s.sendUDP(src, dst, payload); err != nil {
		return opError("write", "udp", udpAddr(src), udpAddr(dst), err)
	}
	s.counts.udpOut.Add(1)
	return nil
}

func (s *Stack) sendUDP(src, dst netip.AddrPort, payload []byte) error {
	if !dst.Addr().IsValid() || src.Addr().Is4() != dst.Addr().Is4() {
		return syscall.EINVAL
	}
	if len(payload) > maxDatagram {
		return syscall.EMSGSIZE
	}
	length := uint16(header.UDPMinimumSize + len(payload))
	hdr := header.UDP(make([]byte, header.UDPMinimumSize))
	hdr.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: length})
	return s.sendPacket(src.Addr(), dst.Addr(), udp.ProtocolNumber, hdr, payload, func(r *stack.Route, hdr []byte, sum uint16) {
		h := header.UDP(hdr)
		sum = h.CalculateChecksum(checksum.Combine(r.PseudoHeaderChecksum(udp.ProtocolNumber, length), sum))
		h.SetChecksum(udpChecksum(sum))
	})
}

// A udpConn is a connected UDP endpoint.
type udpConn struct {
	life
	ep            tcpip.Endpoint
	local, remote netip.AddrPort

	readMu   sync.Mutex // serializes Reads
	readable <-chan struct{}
}

var _ net.Conn = (*udpConn)(nil)

func (s *Stack) newUDPConn(ep tcpip.Endpoint, wq *waiter.Queue, local, remote netip.AddrPort) *udpConn {
	c := &udpConn{ep: ep, local: local, remote: remote}
	c.begin(s, c.opError)
	var entry waiter.Entry
	entry, c.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	return c
}

func (c *udpConn) opError(op string, err error) error {
	return opError(op, "udp", c.LocalAddr(), c.RemoteAddr(), err)
}

// Read implements net.Conn: one datagram, cut to len(b).
func (c *udpConn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	return n, c.opError("read", err)
}

func (c *udpConn) read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	passed := c.readBy.wait()
	err := c.ready(passed)
	for err == nil {
		w := tcpip.SliceWriter(b)
		res, terr := c.ep.Read(&w, tcpip.ReadOptions{})
		switch terr.(type) {
		case nil:
			return res.Count, nil
		case *tcpip.ErrWouldBlock:
			err = c.wait(c.readable, passed)
		default:
			err = c.failed(terr)
		}
	}
	return 0, err
}

// Write implements net.Conn: one datagram. It never blocks.
func (c *udpConn) Write(b []byte) (int, error) {
	n, err := c.write(b)
	return n, c.opError("write", err)
}

func (c *udpConn) write(b []byte) (int, error) {
	if err := c.ready(c.writeBy.wait()); err != nil {
		return 0, err
	}
	n, terr := c.ep.Write(bytes.NewReader(b), tcpip.WriteOptions{})
	if terr == nil {
		return int(n), nil
	}
	return 0, c.failed(terr)
}

// Close implements net.Conn.
func (c *udpConn) Close() error { return c.end("close", c.ep.Close) }

// LocalAddr implements net.Conn.
func (c *udpConn) LocalAddr() net.Addr { return udpAddr(c.local) }

// RemoteAddr implements net.Conn.
func (c *udpConn) RemoteAddr() net.Addr { return udpAddr(c.remote) }
