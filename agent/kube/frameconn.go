package kube

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// frameConn carries SPDY/3.1 frames for the library. The library writes a frame in several pieces, each of which would become
// a TLS record or a WebSocket message of its own; frameConn puts them together and writes each frame once.
//
// The data of one stream goes past the library, which takes a buffer and two hand-overs between goroutines for each
// frame that comes: whoever reads it reads the connection, and leaves the other frames to the library.
type frameConn struct {
	rwc    io.ReadWriteCloser
	buf    []byte // of an unfinished frame of the library; used by one writer at a time
	direct uint32 // the stream whose data goes past the library, set before the library reads
	out    uint32 // the stream that writeData writes: the same one, but for a container's standard streams

	writeMu sync.Mutex // held across the write of a frame
	first   []byte     // a frame's header and the first of its data; guarded by writeMu

	pumpMu sync.Mutex // held by who reads the connection, guards the fields up to last
	reader *bufio.Reader
	left   int  // bytes to come of a frame of the direct stream
	last   bool // no frame follows that one

	mu      sync.Mutex // guards the fields below; taken after pumpMu
	changed sync.Cond
	frames  bytes.Buffer // for the library, whole ones
	early   bytes.Buffer // data of the direct stream that the library's Read met
	read    bool         // somebody has begun to read the direct stream: the library reads the connection no more
	over    bool         // nothing comes on it behind early
	readErr error        // that ended reading, the first one

	once sync.Once
	err  error // of the first Close
}

const (
	// frameHeader is the length of a frame's header; its last three bytes are the
	// length of what follows, in data and control frames alike (SPDY/3.1 §2.2).
	frameHeader = 8
	// maxOther bounds a frame that is not of the direct stream, and what the library may leave unread.
	maxOther = 1 << 20
	// firstPiece is what is copied of a frame that is written. More is written from where it is; a TLS record takes no more anyway.
	firstPiece = 16 << 10

	typeReset = 3 // RST_STREAM, SPDY/3.1 §2.6.3
)

func newFrameConn(rwc io.ReadWriteCloser) *frameConn {
	c := &frameConn{rwc: rwc, reader: bufio.NewReaderSize(rwc, 64<<10)}
	c.changed.L = &c.mu
	return c
}

// Read gives the library its frames.
func (c *frameConn) Read(p []byte) (int, error) {
	for {
		c.mu.Lock()
		for c.read && c.frames.Len() == 0 && c.readErr == nil {
			c.changed.Wait()
		}
		if c.frames.Len() > 0 {
			defer c.mu.Unlock()
			return c.frames.Read(p)
		}
		err := c.readErr
		c.mu.Unlock()
		if err != nil {
			return 0, err
		}
		c.pumpMu.Lock()
		c.pump()
		if c.left > 0 {
			c.keepEarly()
		}
		c.pumpMu.Unlock()
	}
}

// keepEarly reads the frame of the direct stream whose header was read, for who will read that. The caller holds c.pumpMu.
func (c *frameConn) keepEarly() {
	if c.left > maxOther {
		c.fail(io.ErrShortBuffer)
		return
	}
	data := make([]byte, c.left)
	if _, err := io.ReadFull(c.reader, data); err != nil {
		c.fail(err)
		return
	}
	c.left = 0
	c.mu.Lock()
	defer c.mu.Unlock()
	c.early.Write(data)
	c.over = c.over || c.last
	if c.early.Len() > maxOther {
		c.readErr = io.ErrShortBuffer
	}
}

// readData reads from the direct stream. Its end is io.EOF.
func (c *frameConn) readData(p []byte) (int, error) {
	// The library may be at the connection still, and no frame come that ends its wait.
	if n, err := c.readEarly(p); n > 0 || err != nil {
		return n, err
	}
	c.pumpMu.Lock()
	defer c.pumpMu.Unlock()
	for c.left == 0 {
		if n, err := c.readEarly(p); n > 0 || err != nil {
			return n, err
		}
		if err := c.pump(); err != nil {
			return 0, err
		}
	}
	n, err := c.reader.Read(p[:min(len(p), c.left)])
	if err != nil {
		return n, c.fail(err)
	}
	if c.left -= n; c.left == 0 && c.last {
		c.end()
	}
	return n, nil
}

// readEarly reads what the library's Read met of the direct stream: its end is io.EOF, nothing is 0 and nil.
func (c *frameConn) readEarly(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.read {
		c.read = true
		c.changed.Broadcast()
	}
	if c.over || c.early.Len() > 0 {
		return c.early.Read(p)
	}
	return 0, nil
}

// end notes that nothing more comes on the direct stream.
func (c *frameConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// pump reads one frame, or the header of one of the direct stream. The caller holds c.pumpMu.
func (c *frameConn) pump() error {
	c.mu.Lock()
	err := c.readErr
	c.mu.Unlock()
	if err != nil {
		return err
	}
	head, err := c.reader.Peek(frameHeader)
	if err != nil {
		return c.fail(err)
	}
	first, size := binary.BigEndian.Uint32(head), int(binary.BigEndian.Uint32(head[4:])&0xffffff)
	control := first&(1<<31) != 0
	if !control && first == c.direct {
		c.left, c.last = size, head[4]&1 != 0 // FLAG_FIN
		c.reader.Discard(frameHeader)         // peeked: cannot fail
		if c.left == 0 && c.last {
			c.end()
		}
		return nil
	}
	if size > maxOther {
		return c.fail(io.ErrShortBuffer)
	}
	frame := make([]byte, frameHeader+size)
	if _, err := io.ReadFull(c.reader, frame); err != nil {
		return c.fail(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if control && first&0xffff == typeReset && size >= 4 && binary.BigEndian.Uint32(frame[frameHeader:]) == c.direct {
		c.over = true
	}
	if c.frames.Len() > maxOther {
		c.readErr = io.ErrShortBuffer
	}
	c.frames.Write(frame)
	c.changed.Broadcast()
	return c.readErr
}

// fail ends reading, and returns why it has ended.
func (c *frameConn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.readErr = err
	}
	c.changed.Broadcast()
	return c.readErr
}

// Write takes a piece of a frame of the library and writes the frame when it is complete.
func (c *frameConn) Write(p []byte) (int, error) {
	c.buf = append(c.buf, p...)
	for len(c.buf) >= frameHeader {
		size := frameHeader + int(binary.BigEndian.Uint32(c.buf[4:8])&0xffffff)
		if len(c.buf) < size {
			break
		}
		c.writeMu.Lock()
		_, err := c.rwc.Write(c.buf[:size])
		c.writeMu.Unlock()
		if err != nil {
			return 0, err
		}
		c.buf = c.buf[:copy(c.buf, c.buf[size:])]
	}
	return len(p), nil
}

// writeData writes a frame of the direct stream.
func (c *frameConn) writeData(p []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	n := min(len(p), firstPiece-frameHeader)
	if _, message := c.rwc.(*messageConn); message {
		n = len(p) // in one message
	}
	c.first = binary.BigEndian.AppendUint32(c.first[:0], c.out)
	c.first = binary.BigEndian.AppendUint32(c.first, uint32(len(p)))
	c.first = append(c.first, p[:n]...)
	if n == len(p) {
		_, err := c.rwc.Write(c.first)
		return err
	}
	if s, ok := c.rwc.(*corkStream); ok {
		s.under.cork()
		return errors.Join(c.writeRest(p[n:]), s.under.uncork())
	}
	return c.writeRest(p[n:])
}

// writeRest writes c.first and rest.
func (c *frameConn) writeRest(rest []byte) error {
	if _, err := c.rwc.Write(c.first); err != nil {
		return err
	}
	_, err := c.rwc.Write(rest)
	return err
}

// Close closes the connection; later calls return what the first one did.
func (c *frameConn) Close() error {
	c.once.Do(func() {
		c.fail(io.EOF) // as the library's streams end with their connection
		c.err = c.rwc.Close()
	})
	return c.err
}

// The rest of net.Conn: the SPDY library asks for it and does not use it.

func (c *frameConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *frameConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *frameConn) SetDeadline(time.Time) error      { return nil }
func (c *frameConn) SetReadDeadline(time.Time) error  { return nil }
func (c *frameConn) SetWriteDeadline(time.Time) error { return nil }
