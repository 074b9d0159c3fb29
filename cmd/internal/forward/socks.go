package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// SOCKS 5, RFC 1928.
const (
	socksVersion = 5
	socksConnect = 1
	socksIPv4    = 1
	socksName    = 3
	socksIPv6    = 4

	noAuthentication = 0
	noMethod         = 0xff

	replyOK          = 0
	replyFailure     = 1
	replyNotAllowed  = 2
	replyNetwork     = 3 // unreachable
	replyHost        = 4 // unreachable
	replyRefused     = 5
	replyExpired     = 6
	replyCommand     = 7 // not supported
	replyAddressType = 8 // not supported
)

// greetTimeout bounds the time in which a client says what it wants.
const greetTimeout = 30 * time.Second

// socks serves one client of the SOCKS proxy. Exactly what it says of the protocol
// is read: what follows is the flow's.
func (s *Server) socks(ctx context.Context, c *net.TCPConn) error {
	if err := c.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		return errors.Join(err, c.Close())
	}
	host, port, err := socksRequest(c)
	if err != nil {
		c.Close()
		return err
	}
	f, err := s.cfg.Dialer.open(ctx, host, port)
	if err != nil {
		werr := socksReply(c, replyFor(err))
		c.Close()
		return errors.Join(err, werr)
	}
	err = socksReply(c, replyOK)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		return errors.Join(err, c.Close(), f.Close())
	}
	return hand(f, c)
}

// socksRequest greets the client and reads where it wants to be connected to.
func socksRequest(c io.ReadWriter) (host string, port uint16, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return "", 0, fmt.Errorf("read SOCKS greeting: %w", err)
	}
	if head[0] != socksVersion {
		return "", 0, fmt.Errorf("SOCKS version %d is not spoken here, only 5", head[0])
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(c, methods); err != nil {
		return "", 0, fmt.Errorf("read SOCKS greeting: %w", err)
	}
	method := byte(noMethod)
	for _, m := range methods {
		if m == noAuthentication {
			method = m
		}
	}
	if _, err := c.Write([]byte{socksVersion, method}); err != nil {
		return "", 0, fmt.Errorf("answer SOCKS greeting: %w", err)
	}
	if method == noMethod {
		return "", 0, errors.New("the SOCKS client insists on a password; there is none")
	}
	return socksDestination(c)
}

func socksDestination(c io.ReadWriter) (host string, port uint16, err error) {
	refuse := func(reply byte, why string) (string, uint16, error) {
		return "", 0, errors.Join(errors.New(why), socksReply(c, reply))
	}
	var head [4]byte // version, command, reserved, type of address
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return "", 0, fmt.Errorf("read SOCKS request: %w", err)
	}
	if head[0] != socksVersion {
		return refuse(replyFailure, "the SOCKS request is malformed")
	}
	if head[1] != socksConnect {
		return refuse(replyCommand, "SOCKS BIND and UDP ASSOCIATE are not served")
	}
	size := 0
	switch head[3] {
	case socksIPv4:
		size = 4
	case socksIPv6:
		size = 16
	case socksName:
		var n [1]byte
		if _, err := io.ReadFull(c, n[:]); err != nil {
			return "", 0, fmt.Errorf("read SOCKS request: %w", err)
		}
		size = int(n[0])
	default:
		return refuse(replyAddressType, "the SOCKS request has an address of unknown type")
	}
	rest := make([]byte, size+2)
	if _, err := io.ReadFull(c, rest); err != nil {
		return "", 0, fmt.Errorf("read SOCKS request: %w", err)
	}
	host, port = string(rest[:size]), binary.BigEndian.Uint16(rest[size:])
	if head[3] != socksName {
		a, _ := netip.AddrFromSlice(rest[:size])
		host = a.Unmap().String()
	}
	if host == "" || port == 0 {
		return refuse(replyFailure, "the SOCKS request names no host or port")
	}
	return host, port, nil
}

func socksReply(c io.Writer, reply byte) error {
	// What the flow is bound to is the agent's business; nobody looks at it.
	_, err := c.Write([]byte{socksVersion, reply, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	return err
}

// replyFor is how SOCKS says err.
func replyFor(err error) byte {
	f, told := errors.AsType[*fault.Error](err)
	switch {
	case errors.Is(err, ErrLocal):
		return replyNotAllowed
	case errors.Is(err, syscall.ECONNREFUSED):
		return replyRefused
	case errors.Is(err, syscall.ENETUNREACH):
		return replyNetwork
	case errors.Is(err, syscall.EHOSTUNREACH), told && f.Code == fault.Target:
		return replyHost
	case errors.Is(err, syscall.ETIMEDOUT):
		return replyExpired
	}
	return replyFailure
}
