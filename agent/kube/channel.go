package kube

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"

	"github.com/gorilla/websocket"
)

// channelProtocol is the older form of port-forward over WebSocket: one port for each connection, and the number of a
// channel in front of each message. Without SPDY between the client and the kubelet it is the quickest carrier, and
// a dear one for bulk: the kubelet masks every frame.
const channelProtocol = "v4.channel.k8s.io"

// maxMessage bounds the data of a message. A message must be one frame: streaming servers take each frame for a message
// of its own, and its first byte for a channel.
const maxMessage = 64 << 10

// Channels of a port.
const (
	portData  = 0
	portError = 1
)

// channels are the numbers of a connection's channels.
type channels struct{ write, read, errs byte }

// channelCarrier is one port-forwarded TCP connection over the channel protocol, or a container's standard streams.
type channelCarrier struct {
	object string // for messages
	port   uint16
	conn   *websocket.Conn
	channels
	rest io.Reader // of the message being read, or nil

	writeMu sync.Mutex
	out     []byte // guarded by writeMu

	closeOnce sync.Once
	closed    chan struct{}
}

var _ Carrier = (*channelCarrier)(nil)

// dialChannel opens a port with the channel protocol.
func (c *Client) dialChannel(ctx context.Context, t *Target, port uint16) (*channelCarrier, error) {
	r := forwardRequest("get", t)
	r.query = url.Values{"ports": {strconv.Itoa(int(port))}}
	ws, err := c.upgradeWebSocket(ctx, r, channelProtocol)
	if err != nil {
		return nil, err
	}
	f := &channelCarrier{object: "pod " + t.Namespace + "/" + t.Pod, port: port, conn: ws.conn, channels: channels{portData, portData, portError}, closed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { ws.conn.Close() })
	err = f.readPorts()
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open port-forward channel: %w", err)
	}
	return f, nil
}

// readPorts reads the first message of each channel: the port, little endian.
func (f *channelCarrier) readPorts() error {
	for range 2 {
		_, msg, err := f.conn.ReadMessage()
		if err != nil {
			return err
		}
		if len(msg) != 3 || msg[0] > portError || binary.LittleEndian.Uint16(msg[1:]) != f.port {
			return fmt.Errorf("server speaks another protocol than %s", channelProtocol)
		}
	}
	return nil
}

// Protocol is one of the Protocol constants.
func (f *channelCarrier) Protocol() string {
	if f.port == 0 {
		return ProtocolAttach
	}
	return ProtocolChannel
}

// Read reads from the pod's port. When the far side said why the stream ended,
// that is the error.
func (f *channelCarrier) Read(p []byte) (int, error) {
	for {
		if f.rest == nil {
			if err := f.nextMessage(); err != nil {
				return 0, f.ended(err)
			}
		}
		n, err := f.rest.Read(p)
		if errors.Is(err, io.EOF) {
			f.rest, err = nil, nil
		}
		if err != nil {
			err = f.ended(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// nextMessage makes f.rest the next message of the data channel.
func (f *channelCarrier) nextMessage() error {
	_, r, err := f.conn.NextReader()
	if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		return io.EOF
	}
	if err != nil {
		return err
	}
	var channel [1]byte
	if _, err := io.ReadFull(r, channel[:]); err != nil {
		return err
	}
	switch channel[0] {
	case f.read:
		f.rest = r
		return nil
	case f.errs:
		b, err := io.ReadAll(io.LimitReader(r, maxStatus))
		switch {
		case err != nil:
			return err
		case f.port > 0:
			return forwardFailure(f.object, f.port, oneLine(string(b)))
		case len(b) > 0: // a channel begins with an empty message
			return attachEnded(f.object, string(b))
		}
		f.rest = r
		return nil
	}
	return fmt.Errorf("message for channel %d", channel[0])
}

// ended is net.ErrClosed after Close, else err.
func (f *channelCarrier) ended(err error) error {
	select {
	case <-f.closed:
		return net.ErrClosed
	default:
		return err
	}
}

// Write writes to the pod's port.
func (f *channelCarrier) Write(p []byte) (int, error) {
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	for done := 0; done < len(p); {
		n := min(len(p)-done, maxMessage)
		f.out = append(append(f.out[:0], f.write), p[done:done+n]...)
		if err := f.conn.WriteMessage(websocket.BinaryMessage, f.out); err != nil {
			return done, f.ended(fmt.Errorf("write to %s: %w", f.object, err))
		}
		done += n
	}
	return len(p), nil
}

// Close ends the connection at once.
func (f *channelCarrier) Close() error {
	f.closeOnce.Do(func() {
		close(f.closed)
		f.conn.Close()
	})
	return nil
}
