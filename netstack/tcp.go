package netstack

import (
	"net"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)


// A TCPConn is a TCP conn of a Stack. Its two directions end separately.
type TCPConn struct{}

var _ net.Conn = (*TCPConn)(nil)

// Read implements net.Conn.
func (c *TCPConn) Read(b []byte) (int, error) { return 0, net.ErrClosed }

// Write implements net.Conn.
func (c *TCPConn) Write(b []byte) (int, error) { return 0, net.ErrClosed }

// Close implements net.Conn.
func (c *TCPConn) Close() error { return net.ErrClosed }

// CloseRead ends the reading direction.
func (c *TCPConn) CloseRead() error { return net.ErrClosed }

// CloseWrite ends the writing direction: the peer reads EOF.
func (c *TCPConn) CloseWrite() error { return net.ErrClosed }

// Reset closes c abortively: the peer gets a RST.
func (c *TCPConn) Reset() error { return net.ErrClosed }

// LocalAddr implements net.Conn.
func (c *TCPConn) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (c *TCPConn) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.Conn.
func (c *TCPConn) SetDeadline(t time.Time) error { return net.ErrClosed }

// SetReadDeadline implements net.Conn.
func (c *TCPConn) SetReadDeadline(t time.Time) error { return net.ErrClosed }

// SetWriteDeadline implements net.Conn.
func (c *TCPConn) SetWriteDeadline(t time.Time) error { return net.ErrClosed }

// A TCPRequest is a SYN that waits for a decision: Accept or Reject, once.
type TCPRequest struct{}

// Flow returns the flow of the SYN: from the client to whom it wants.
func (r *TCPRequest) Flow() flow.Flow { return flow.Flow{} }

// Accept completes the handshake.
func (r *TCPRequest) Accept() (*TCPConn, error) { return nil, net.ErrClosed }

// Reject refuses the request so that the client's connect fails with err's
// errno.
func (r *TCPRequest) Reject(err error) {}
