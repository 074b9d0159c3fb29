package wg

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"github.com/borrownet/borrownet/netstack/link"
)

// bind is WireGuard's socket: a link. Its only error is net.ErrClosed, for wireguard-go stops receiving for good after
// others, and loses what a failed Send was given.
type bind struct {
	link *link.Link
	in   *window[counterKey]
	out  *window[*byte] // keyed by where a message begins: messages are encrypted in place
	gone *arrivals
	open atomic.Bool

	// When both ends begin a handshake at the same time, each answers the other's, neither takes the answer, and 5 s pass.
	// So one end alone does: the other withholds its initiations, and its packets until there is a session.
	initiate bool
	session  func() // called when data messages arrive
}

var _ conn.Bind = (*bind)(nil)

// counterKey tells inbound data messages apart: the session and the message's number in it. Decryption is in place
// and leaves the header, which has both, in front of the packet.
type counterKey struct {
	receiver uint32
	counter  uint64
}

// headerKey returns the key of the data message with this header, or of the packet that was decrypted behind it.
func headerKey(header []byte) counterKey {
	return counterKey{
		receiver: binary.LittleEndian.Uint32(header[device.MessageTransportOffsetReceiver:]),
		counter:  binary.LittleEndian.Uint64(header[device.MessageTransportOffsetCounter:]),
	}
}

func messageType(msg []byte) uint32 {
	if len(msg) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(msg)
}

// hasData reports whether msg carries a packet; else it is a keepalive or of a handshake.
func hasData(msg []byte) bool {
	return messageType(msg) == device.MessageTransportType && len(msg) > device.MessageKeepaliveSize
}

// Open returns the one function that receives.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	if b.open.Swap(true) {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	return []conn.ReceiveFunc{b.receive}, port, nil
}

// Close closes the link, unless the bind is not open: wireguard-go closes it before it opens it, too.
func (b *bind) Close() error {
	if !b.open.Swap(false) {
		return nil
	}
	b.in.close()
	return b.link.Close()
}

func (b *bind) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if !b.in.wait() {
		return 0, net.ErrClosed
	}
	n, err := b.link.Receive(bufs, sizes)
	for i, size := range sizes[:n] {
		eps[i] = endpoint{}
		msg := bufs[i][:size]
		if hasData(msg) {
			b.in.enter(headerKey(msg), size, 0)
		}
		if messageType(msg) == device.MessageTransportType {
			b.session()
		}
	}
	return n, err
}

// Send sends messages of a handshake past the data and without ever waiting: wireguard-go sends them from where it
// receives, too. With data it waits for as long as the link does.
func (b *bind) Send(bufs [][]byte, _ conn.Endpoint) error {
	if len(bufs) == 0 {
		return nil
	}
	switch kind := messageType(bufs[0]); {
	case kind == device.MessageInitiationType && !b.initiate:
		return nil
	case kind != device.MessageTransportType:
		return b.link.SendUrgent(int(kind%4), bufs[0])
	}
	var last *byte // nil is inside no window
	for _, msg := range bufs {
		if hasData(msg) {
			last = &msg[0]
		}
	}
	b.out.begin()
	err := b.link.Send(bufs)
	b.gone.sent(b.out.end(last), b.link.Sent())
	return err
}

// SetMark does nothing: a link has no socket.
func (b *bind) SetMark(uint32) error { return nil }

// ParseEndpoint returns the one endpoint there is.
func (b *bind) ParseEndpoint(string) (conn.Endpoint, error) { return endpoint{}, nil }

func (b *bind) BatchSize() int { return minBatch }

// endpoint is the other end of the link.
type endpoint struct{}

func (endpoint) ClearSrc()           {}
func (endpoint) SrcToString() string { return "" }
func (endpoint) DstToString() string { return "link" }
func (endpoint) DstToBytes() []byte  { return []byte("link") }
func (endpoint) DstIP() netip.Addr   { return netip.IPv4Unspecified() }
func (endpoint) SrcIP() netip.Addr   { return netip.Addr{} }
