package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// maxConns bounds the connections of a Server that are being set up.
const maxConns = 1024

// A ListenError says that an address cannot be listened on.
type ListenError struct {
	At  netip.AddrPort
	Err error
}

// Error says so in one line.
func (e *ListenError) Error() string {
	err := e.Err
	if s, ok := errors.AsType[syscall.Errno](e.Err); ok {
		err = s
	}
	return fmt.Sprintf("listen on %v: %v", e.At, err)
}

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

// listen listens on an address and, where that is 127.0.0.1, on the same port of
// ::1, if this machine has that. Port 0 is any that is free.
func listen(at netip.AddrPort) ([]net.Listener, error) {
	first, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, &ListenError{At: at, Err: err}
	}
	out := []net.Listener{first}
	if at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return out, nil
	}
	port := first.Addr().(*net.TCPAddr).AddrPort().Port()
	six := netip.AddrPortFrom(netip.IPv6Loopback(), port)
	second, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(six))
	switch {
	case err == nil:
		return append(out, second), nil
	case at.Port() != 0 && errors.Is(err, syscall.EADDRINUSE):
		// Half of the programs would reach somebody else there.
		return nil, errors.Join(&ListenError{At: six, Err: err}, first.Close())
	}
	return out, nil
}

// guarded is a listener that hangs up on processes of other users.
type guarded struct {
	net.Listener
	uid     int
	strange func(peer net.Addr, why string)
}

func guard(ln net.Listener, strange func(net.Addr, string)) *guarded {
	return &guarded{Listener: ln, uid: os.Getuid(), strange: strange}
}

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		why := g.refuses(c)
		if why == "" {
			return c, nil
		}
		g.strange(c.RemoteAddr(), why)
		reset(c.(*net.TCPConn))
	}
}

// refuses says why c is not served, or "".
func (g *guarded) refuses(c net.Conn) string {
	uid, err := ownerOf(address(c.RemoteAddr()), address(c.LocalAddr()))
	switch {
	case err != nil:
		return "whose it is cannot be found out: " + err.Error()
	case uid != g.uid:
		return fmt.Sprintf("it is of user %d, not %d", uid, g.uid)
	}
	return ""
}

func address(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// reset ends a connection in a way that cannot be taken for a good end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}
