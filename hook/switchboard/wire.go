package switchboard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/borrownet/borrownet/netstack/flow"
)

// version is the first byte of a request. Client and server come from builds
// that may differ.
const version = 1

// A request is version, protocol, family (4 or 6), what is wanted, the port and
// the address, both in network order. IPv4 addresses take the first four bytes.
const requestSize = 22

// What may be wanted.
const (
	wantFlow       = 0 // to the address
	wantPort       = 1 // the address is listened on: publish its port
	wantPortOnlyV6 = 2 // the same, and the wildcard address is not that of IPv4
	wantAttention  = 3 // programs run until the conn closes
)

// An answer is a verdict and an errno.
const answerSize = 2

const (
	verdictRelay  = 0 // send the far end
	verdictLocal  = 1 // the laptop's own: connect natively
	verdictRefuse = 2 // fail with errno
)

// ErrLocal says that the destination is the laptop's own.
var ErrLocal = errors.New("destination of this machine")

type request struct {
	want  byte
	proto flow.Proto
	dst   netip.AddrPort
}

func (r request) marshal() []byte {
	var b [requestSize]byte
	b[0], b[1], b[2], b[3] = version, byte(r.proto), 6, r.want
	binary.BigEndian.PutUint16(b[4:], r.dst.Port())
	a := r.dst.Addr().Unmap()
	if a.Is4() {
		b[2] = 4
	}
	copy(b[6:], a.AsSlice())
	return b[:]
}

func parseRequest(b []byte) (request, error) {
	if len(b) != requestSize || b[0] != version || b[3] > wantAttention {
		return request{}, errors.New("request of another version")
	}
	r := request{want: b[3], proto: flow.Proto(b[1])}
	port := binary.BigEndian.Uint16(b[4:])
	switch b[2] {
	case 4:
		r.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:10])), port)
	case 6:
		r.dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[6:22])), port)
	default:
		return request{}, fmt.Errorf("family %d", b[2])
	}
	if r.proto != flow.TCP && r.proto != flow.UDP {
		return request{}, fmt.Errorf("protocol %d", b[1])
	}
	return r, nil
}

// answerOf is what a client hears of err.
func answerOf(err error) []byte {
	switch {
	case err == nil:
		return []byte{verdictRelay, 0}
	case errors.Is(err, ErrLocal):
		return []byte{verdictLocal, 0}
	}
	return []byte{verdictRefuse, byte(Errno(err))}
}

// Errno is what connect(2) says of an error of a Handler.
func Errno(err error) syscall.Errno {
	var e syscall.Errno
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &e) && e > 0 && e < 256:
		return e
	case errors.As(err, &timeout) && timeout.Timeout():
		return syscall.ETIMEDOUT
	}
	return syscall.ENETUNREACH
}

// sendFD sends one byte and a descriptor.
func sendFD(c *net.UnixConn, fd int) error {
	_, _, err := c.WriteMsgUnix([]byte{0}, syscall.UnixRights(fd), nil)
	return err
}

// recvFD receives what sendFD sent. The file is close-on-exec.
func recvFD(c *net.UnixConn) (*os.File, error) {
	var b [1]byte
	oob := make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(b[:], oob)
	if err != nil {
		return nil, err
	}
	if n != 1 || oobn == 0 {
		return nil, errors.New("no descriptor")
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if len(msgs) == 0 {
		return nil, errors.New("no descriptor")
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			syscall.Close(fd)
		}
		return nil, errors.New("not one descriptor")
	}
	return os.NewFile(uintptr(fds[0]), "far end"), nil
}
