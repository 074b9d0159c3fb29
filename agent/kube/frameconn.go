package kube

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// frameConn carries SPDY/3.1 frames. The library writes a frame in several
// pieces, each of which would become a TLS record or a WebSocket message of
// its own; frameConn puts them together and writes each frame once.
type frameConn struct {
	rwc    io.ReadWriteCloser
	reader *bufio.Reader
	buf    []byte // of an unfinished frame; used by one writer at a time

	once sync.Once
	err  error // of the first Close
}

// frameHeader is the length of a frame's header; its last three bytes are the
// length of what follows, in data and control frames alike (SPDY/3.1 §2.2).
const frameHeader = 8

func newFrameConn(rwc io.ReadWriteCloser) *frameConn {
	return &frameConn{rwc: rwc, reader: bufio.NewReaderSize(rwc, 64<<10)}
}

func (c *frameConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// Write takes a piece of a frame and writes the frame when it is complete.
func (c *frameConn) Write(p []byte) (int, error) {
	c.buf = append(c.buf, p...)
	for len(c.buf) >= frameHeader {
		size := frameHeader + int(binary.BigEndian.Uint32(c.buf[4:8])&0xffffff)
		if len(c.buf) < size {
			break
		}
		if _, err := c.rwc.Write(c.buf[:size]); err != nil {
			return 0, err
		}
		c.buf = c.buf[:copy(c.buf, c.buf[size:])]
	}
	return len(p), nil
}

// Close closes the connection; later calls return what the first one did.
func (c *frameConn) Close() error {
	c.once.Do(func() { c.err = c.rwc.Close() })
	return c.err
}

// The rest of net.Conn: the SPDY library asks for it and does not use it.

func (c *frameConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *frameConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *frameConn) SetDeadline(time.Time) error      { return nil }
func (c *frameConn) SetReadDeadline(time.Time) error  { return nil }
func (c *frameConn) SetWriteDeadline(time.Time) error { return nil }
