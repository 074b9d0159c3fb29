package netstack

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/borrownet/borrownet/netstack/flow"
)

// Keepalives of a conn: a peer that is gone is noticed after 60+30×9 s, longer
// than a carrier may be away.
const (
	keepaliveIdle     = 60 * time.Second
	keepaliveInterval = 30 * time.Second
	keepaliveCount    = 9
)

// A TCPConn is a TCP conn of a Stack. Its two directions end separately. Its
// errors are *net.OpError and wrap an errno, os.ErrDeadlineExceeded or
// net.ErrClosed.
type TCPConn struct {
	life
	ep            tcpip.Endpoint
	local, remote netip.AddrPort
	sender        *sender

	// What it may buffer; unused where the stack has no budget.
	sendPart, sendGrant, receiveSize, receiveGrant atomic.Int64

	readMu    sync.Mutex // serializes Reads
	readSince int        // bytes since receiveSize was looked at; guarded by readMu
	readable  <-chan struct{}

	writeMu  sync.Mutex    // serializes Writes
	writable chan struct{} // holds one; gVisor and limitSend wake Writes
}

var _ net.Conn = (*TCPConn)(nil)

// newTCPConn wraps ep, which is connected, and whose queue is wq.
func (s *Stack) newTCPConn(ep tcpip.Endpoint, wq *waiter.Queue, local, remote netip.AddrPort) *TCPConn {
	c := &TCPConn{ep: ep, local: local, remote: remote}
	c.begin(s, c.opError)

	ended := waiter.EventHUp | waiter.EventErr
	var readEntry, writeEntry waiter.Entry
	readEntry, c.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventRdHUp | ended)
	writeEntry, c.writable = waiter.NewChannelEntry(waiter.WritableEvents | ended)
	wq.EventRegister(&readEntry)
	wq.EventRegister(&writeEntry)

	// The link knows the conn as long as ep may send, also after Close.
	c.sender = s.link.addSender(flow.Flow{Proto: flow.TCP, Src: local, Dst: remote})
	s.shares.add(c)
	s.open.add(c)
	over := func() {
		s.link.removeSender(c.sender)
		s.shares.remove(c)
		s.open.remove(c)
	}
	endEntry := waiter.NewFunctionEntry(waiter.EventHUp, func(waiter.EventMask) { over() })
	wq.EventRegister(&endEntry)
	if ep.Readiness(waiter.EventHUp) != 0 {
		over()
	}

	idle := tcpip.KeepaliveIdleOption(keepaliveIdle)
	interval := tcpip.KeepaliveIntervalOption(keepaliveInterval)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	ep.SocketOptions().SetKeepAlive(true)
	return c
}

func (c *TCPConn) opError(op string, err error) error {
	return opError(op, "tcp", c.LocalAddr(), c.RemoteAddr(), err)
}

// Read implements net.Conn.
func (c *TCPConn) Read(b []byte) (int, error) {
	return c.ReadLazily(func() []byte { return b }, func() {})
}

// ReadLazily is Read with a buffer that take lends for each attempt. Before it
// waits it returns the buffer with giveBack, so a conn that is silent needs
// none.
func (c *TCPConn) ReadLazily(take func() []byte, giveBack func()) (int, error) {
	n, err := c.read(take, giveBack)
	return n, c.opError("read", err)
}

func (c *TCPConn) read(take func() []byte, giveBack func()) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	passed := c.readBy.wait()
	err := c.ready(passed)
	for err == nil {
		b := take()
		if len(b) == 0 {
			return 0, nil
		}
		w := tcpip.SliceWriter(b)
		res, terr := c.ep.Read(&w, tcpip.ReadOptions{})
		switch terr.(type) {
		case nil:
			c.ep.ModerateRecvBuf(res.Count)
			c.growReceive(res.Count)
			return res.Count, nil
		case *tcpip.ErrWouldBlock:
			giveBack()
			err = c.wait(c.readable, passed)
		default:
			err = c.failed(terr)
		}
	}
	return 0, err
}

// Write implements net.Conn.
func (c *TCPConn) Write(b []byte) (int, error) {
	n, err := c.write(b)
	return n, c.opError("write", err)
}

func (c *TCPConn) write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	passed := c.writeBy.wait()
	err := c.ready(passed)
	n := 0
	for err == nil && n < len(b) {
		if err = c.admitted(passed); err != nil {
			break
		}
		k, terr := c.ep.Write(bytes.NewReader(b[n:]), tcpip.WriteOptions{})
		n += int(k)
		switch terr.(type) {
		case nil:
			if n < len(b) {
				err = c.ready(passed)
			}
		case *tcpip.ErrWouldBlock:
			if !c.growSend() {
				err = c.wait(c.writable, passed)
			}
		default:
			err = c.failed(terr)
		}
	}
	return n, err
}

// admitted waits until the link has room for more of c.
func (c *TCPConn) admitted(passed <-chan struct{}) error {
	for {
		room, ok := c.stack.link.admit(c.sender.flow)
		if ok {
			return nil
		}
		if err := c.wait(room, passed); err != nil {
			c.stack.link.abandon(room)
			return err
		}
	}
}

// Close implements net.Conn. What was written is still sent; if something that
// was received is unread, the peer gets a RST.
func (c *TCPConn) Close() error { return c.end("close", c.ep.Close) }

// Reset closes c abortively: the peer gets a RST, and what was written but not
// sent is dropped.
func (c *TCPConn) Reset() error {
	return c.end("reset", func() {
		c.ep.Abort()
		c.ep.Close()
	})
}

// CloseRead ends the reading direction: Reads return EOF.
func (c *TCPConn) CloseRead() error { return c.shutdown("close read", tcpip.ShutdownRead) }

// CloseWrite ends the writing direction: the peer reads EOF after what was
// written.
func (c *TCPConn) CloseWrite() error { return c.shutdown("close write", tcpip.ShutdownWrite) }

func (c *TCPConn) shutdown(op string, how tcpip.ShutdownFlags) error {
	if err := c.ready(nil); err != nil {
		return c.opError(op, err)
	}
	if terr := c.ep.Shutdown(how); terr != nil {
		return c.opError(op, c.failed(terr))
	}
	return nil
}

// LocalAddr implements net.Conn.
func (c *TCPConn) LocalAddr() net.Addr { return tcpAddr(c.local) }

// RemoteAddr implements net.Conn.
func (c *TCPConn) RemoteAddr() net.Addr { return tcpAddr(c.remote) }
