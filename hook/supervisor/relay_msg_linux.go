package supervisor

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
)

// The calls of datagram sockets that carry an address. Who sends to a far end
// names the destination, and who hears from a far end is told the destination:
// resolvers compare the two.

const (
	maxDatagram = 65535
	maxIovecs   = 1024 // UIO_MAXIOV
	maxMessages = 1024 // sendmmsg(2) takes no more at once either
	maxControl  = 4096 // of ancillary data, per message
)

// sendto judges sendto(2) with an address.
func (r *relay) sendto(n *notification, c trap) verdict {
	flags := int(int32(c.args[3]))
	if flags&msgFastopen != 0 {
		return fail(unix.EOPNOTSUPP, nil)
	}
	sa, err := r.sockaddr(n, c.args[4], uint32(c.args[5]))
	if err != nil {
		return unreadable(uint32(c.args[5]), err)
	}
	s, _, err := r.table.acquire(int(n.Pid), int(int32(c.args[0])))
	if err != nil {
		return unreadable(uint32(c.args[5]), err)
	}
	dst, v, mine := r.judgeSend(n, s, sa)
	if !mine {
		r.releaseAny(s)
		return v
	}
	if c.args[2] > maxDatagram {
		r.table.release(s)
		return fail(unix.EMSGSIZE, nil)
	}
	payload := make([]byte, c.args[2])
	if err := r.read(n, c.args[1], payload); err != nil {
		r.table.release(s)
		return fail(unix.EFAULT, err)
	}
	return wait(func() verdict {
		defer r.table.release(s)
		m, errno := r.send(n, s, dst, payload, flags)
		return verdict{val: int64(m), errno: errno}
	})
}

func (r *relay) releaseAny(s *relaySocket) {
	if s != nil {
		r.table.release(s)
	}
}

// judgeSend decides about a datagram to sa; mine means that it is for a far end.
func (r *relay) judgeSend(n *notification, s *relaySocket, sa []byte) (dst netip.AddrPort, v verdict, mine bool) {
	if f := family(sa); s == nil && f != unix.AF_INET && f != unix.AF_INET6 {
		return dst, leave(nil), false
	}
	if s == nil {
		dst, ok := parseSockaddr(sa)
		if ok && isLaptops(dst) {
			return dst, leave(nil), false
		}
		if at, err := r.sup.home.contains(int(n.Pid), unix.AF_INET); !at {
			return dst, leave(err), false
		}
		return dst, fail(unix.ENETUNREACH, nil), false
	}
	if s.typ != unix.SOCK_DGRAM {
		return dst, leave(nil), false // a stream heeds no address
	}
	dst, errno := s.destination(sa)
	switch {
	case errno != 0:
		return dst, fail(errno, nil), false
	case isLaptops(dst) && dst.Port() != portDNS:
		return dst, leave(nil), false // the socket is bound to loopback, whatever the address says later
	case dst.Port() == 0:
		return dst, fail(unix.EINVAL, nil), false
	}
	return dst, verdict{}, true
}

// message is struct msghdr of the native convention, with what it points to.
type message struct {
	name    uint64
	nameLen uint32
	iov     []unix.RemoteIovec
	size    int // of iov
	control uint64
	ctlLen  uint64
}

const (
	sizeofMsghdr  = 56
	sizeofMmsghdr = 64
	offNameLen    = 8
	offCtlLen     = 40
	offMsgFlags   = 48
	offMsgLen     = 56 // of struct mmsghdr
)

// header reads a struct msghdr.
func (r *relay) header(n *notification, addr uint64) ([]byte, message, error) {
	var b [sizeofMsghdr]byte
	if err := r.read(n, addr, b[:]); err != nil {
		return nil, message{}, err
	}
	le := binary.LittleEndian
	return b[:], message{name: le.Uint64(b[0:]), nameLen: le.Uint32(b[offNameLen:]), control: le.Uint64(b[32:]), ctlLen: le.Uint64(b[offCtlLen:])}, nil
}

// buffers reads the iovecs of a header.
func (r *relay) buffers(n *notification, hdr []byte, m *message) syscall.Errno {
	at, count := binary.LittleEndian.Uint64(hdr[16:]), binary.LittleEndian.Uint64(hdr[24:])
	if count > maxIovecs {
		return unix.EMSGSIZE
	}
	raw := make([]byte, 16*count)
	if err := r.read(n, at, raw); err != nil {
		return unix.EFAULT
	}
	for ; len(raw) > 0; raw = raw[16:] {
		base, size := binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:])
		if size > 1<<31 {
			return unix.EINVAL
		}
		m.iov = append(m.iov, unix.RemoteIovec{Base: uintptr(base), Len: int(size)})
		m.size += int(size)
	}
	return 0
}

// gather reads the payload of a message to be sent.
func (r *relay) gather(n *notification, m *message) ([]byte, syscall.Errno) {
	if m.size > maxDatagram {
		return nil, unix.EMSGSIZE
	}
	if m.size == 0 {
		return nil, 0
	}
	buf := make([]byte, m.size)
	got, err := readBuffers(int(n.Pid), m.iov, buf)
	if err != nil || got < len(buf) || !r.sup.alive(n) {
		return nil, unix.EFAULT
	}
	return buf, 0
}

// sendmsg judges sendmsg(2) and sendmmsg(2).
func (r *relay) sendmsg(n *notification, c trap, many bool) verdict {
	count, stride, flags := 1, uint64(sizeofMsghdr), int(int32(c.args[2]))
	if many {
		count, stride, flags = int(min(uint32(c.args[2]), maxMessages)), sizeofMmsghdr, int(int32(c.args[3]))
	}
	named := false
	for i := range count {
		_, m, err := r.header(n, c.args[1]+uint64(i)*stride)
		if err != nil {
			return leave(err) // datagram sockets are bound to loopback, and streams heed no address
		}
		if named = m.name != 0 && m.nameLen >= 2; named {
			break
		}
	}
	if !named {
		return leave(nil)
	}
	s, _, err := r.table.acquire(int(n.Pid), int(int32(c.args[0])))
	if err != nil {
		return leave(err)
	}
	if s == nil {
		return r.sendForeign(n, c)
	}
	if s.typ != unix.SOCK_DGRAM {
		r.table.release(s)
		return leave(nil)
	}
	return wait(func() verdict {
		defer r.table.release(s)
		for i := range count {
			at := c.args[1] + uint64(i)*stride
			sent, errno := r.sendOne(n, s, at, flags)
			switch {
			case errno != 0 && i > 0:
				return verdict{val: int64(i)}
			case errno != 0:
				return fail(errno, nil)
			case !many:
				return verdict{val: int64(sent)}
			}
			if err := r.write(n, at+offMsgLen, binary.LittleEndian.AppendUint32(nil, uint32(sent))); err != nil {
				return fail(unix.EFAULT, err)
			}
		}
		return verdict{val: int64(count)}
	})
}

// sendForeign judges a message with an address on what is not tracked.
func (r *relay) sendForeign(n *notification, c trap) verdict {
	_, m, err := r.header(n, c.args[1])
	if err != nil {
		return leave(err)
	}
	sa, err := r.sockaddr(n, m.name, m.nameLen)
	if err != nil {
		return leave(err)
	}
	_, v, _ := r.judgeSend(n, nil, sa)
	return v
}

// sendOne sends one message of a datagram socket.
func (r *relay) sendOne(n *notification, s *relaySocket, at uint64, flags int) (int, syscall.Errno) {
	hdr, m, err := r.header(n, at)
	if err != nil {
		return 0, unix.EFAULT
	}
	if errno := r.buffers(n, hdr, &m); errno != 0 {
		return 0, errno
	}
	payload, errno := r.gather(n, &m)
	if errno != 0 {
		return 0, errno
	}
	if m.name == 0 {
		err := unix.Sendto(s.fd, payload, flags|unix.MSG_NOSIGNAL, nil)
		if err != nil {
			return 0, errnoOf(err)
		}
		return len(payload), 0
	}
	sa, err := r.sockaddr(n, m.name, m.nameLen)
	if err != nil {
		return 0, unix.EFAULT
	}
	dst, errno := s.destination(sa)
	if errno != 0 {
		return 0, errno
	}
	if dst.Port() == 0 {
		return 0, unix.EINVAL
	}
	if isLaptops(dst) && dst.Port() != portDNS {
		if err := unix.Sendto(s.fd, payload, flags|unix.MSG_NOSIGNAL, farend.Sockaddr(s.domain, dst)); err != nil {
			return 0, errnoOf(err)
		}
		return len(payload), 0
	}
	return r.send(n, s, dst, payload, flags)
}

// sendCompat judges the message calls of socketcall(2), which alone reach it.
func (r *relay) sendCompat(_ *notification, c trap) verdict {
	flags := c.args[2]
	if c.nr == c.abi.sendmmsg {
		flags = c.args[3]
	}
	if flags&msgFastopen != 0 {
		return fail(unix.EOPNOTSUPP, nil)
	}
	return leave(nil)
}

// receiver returns the socket if what it receives may be from a far end.
func (r *relay) receiver(n *notification, fd uint64, flags int) *relaySocket {
	if r.datagrams.Load() == 0 || flags&msgErrqueue != 0 {
		return nil
	}
	s, _, err := r.table.acquire(int(n.Pid), int(int32(fd)))
	if s == nil || err != nil {
		return nil
	}
	if s.typ != unix.SOCK_DGRAM || !s.hasFlows() {
		r.table.release(s)
		return nil
	}
	return s
}

// datagram is one that was received for a program.
type datagram struct {
	payload, control []byte
	size             int // of the payload, more than there is if it was cut
	flags            int
	from             netip.AddrPort
}

// receive takes one datagram. It waits if the program does.
func (r *relay) receive(n *notification, s *relaySocket, room, controlRoom, flags int, until time.Time) (*datagram, syscall.Errno) {
	buf, oob := make([]byte, min(room, maxDatagram)), make([]byte, controlRoom)
	waits := flags&unix.MSG_DONTWAIT == 0 && !farend.Nonblocking(s.fd)
	if tv, err := unix.GetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO); waits && until.IsZero() && err == nil && tv.Nano() > 0 {
		until = time.Now().Add(time.Duration(tv.Nano()))
	}
	flags &= unix.MSG_PEEK | unix.MSG_TRUNC
	for {
		got, oobn, rflags, from, err := unix.Recvmsg(s.fd, buf, oob, flags|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == nil:
			return &datagram{
				payload: buf[:min(got, len(buf))], size: got, control: oob[:oobn], flags: rflags, from: s.real(farend.AddrPort(from)),
			}, 0
		case err == unix.EINTR:
		case err == unix.EAGAIN && waits:
			if !r.awaitFor(n, s.fd, unix.POLLIN, until) {
				return nil, unix.EAGAIN
			}
		default:
			return nil, errnoOf(err)
		}
	}
}

// recvfrom judges recvfrom(2) with room for an address.
func (r *relay) recvfrom(n *notification, c trap) verdict {
	flags := int(int32(c.args[3]))
	s := r.receiver(n, c.args[0], flags)
	if s == nil {
		return leave(nil)
	}
	return wait(func() verdict {
		defer r.table.release(s)
		d, errno := r.receive(n, s, int(min(c.args[2], maxDatagram)), 0, flags, time.Time{})
		if errno != 0 {
			return fail(errno, nil)
		}
		if err := r.write(n, c.args[1], d.payload); err != nil {
			return fail(unix.EFAULT, err)
		}
		if errno := r.writeSockaddr(n, c.args[4], c.args[5], s.domain, d.from); errno != 0 {
			return fail(errno, nil)
		}
		return verdict{val: int64(d.size)}
	})
}

// recvmsg judges recvmsg(2) and recvmmsg(2).
func (r *relay) recvmsg(n *notification, c trap, many bool) verdict {
	flags := int(int32(c.args[2]))
	if many {
		flags = int(int32(c.args[3]))
	}
	s := r.receiver(n, c.args[0], flags)
	if s == nil {
		return leave(nil)
	}
	return wait(func() verdict {
		defer r.table.release(s)
		if !many {
			size, errno := r.recvOne(n, s, c.args[1], flags, time.Time{})
			return verdict{val: int64(size), errno: errno}
		}
		return r.recvMany(n, s, c, flags)
	})
}

// msgWaitForOne is MSG_WAITFORONE.
const msgWaitForOne = 0x10000

func (r *relay) recvMany(n *notification, s *relaySocket, c trap, flags int) verdict {
	var until time.Time
	if c.args[4] != 0 {
		var ts [16]byte
		if err := r.read(n, c.args[4], ts[:]); err != nil {
			return fail(unix.EFAULT, err)
		}
		sec, nsec := binary.LittleEndian.Uint64(ts[:]), binary.LittleEndian.Uint64(ts[8:])
		until = time.Now().Add(time.Duration(min(sec, 1<<31))*time.Second + time.Duration(min(nsec, 1e9)))
	}
	count := int(min(uint32(c.args[2]), maxMessages))
	for i := range count {
		at := c.args[1] + uint64(i)*sizeofMmsghdr
		size, errno := r.recvOne(n, s, at, flags&^msgWaitForOne, until)
		switch {
		case errno != 0 && i > 0:
			return verdict{val: int64(i)}
		case errno != 0:
			return fail(errno, nil)
		}
		if err := r.write(n, at+offMsgLen, binary.LittleEndian.AppendUint32(nil, uint32(size))); err != nil {
			return fail(unix.EFAULT, err)
		}
		if flags&msgWaitForOne != 0 {
			flags |= unix.MSG_DONTWAIT
		}
	}
	return verdict{val: int64(count)}
}

// recvOne receives into one struct msghdr.
func (r *relay) recvOne(n *notification, s *relaySocket, at uint64, flags int, until time.Time) (int, syscall.Errno) {
	hdr, m, err := r.header(n, at)
	if err != nil {
		return 0, unix.EFAULT
	}
	if errno := r.buffers(n, hdr, &m); errno != 0 {
		return 0, errno
	}
	room := 0
	if m.control != 0 {
		room = int(min(m.ctlLen, maxControl))
	}
	d, errno := r.receive(n, s, m.size, room, flags, until)
	if errno != 0 {
		return 0, errno
	}
	if err := r.scatter(n, m.iov, d.payload); err != nil {
		return 0, unix.EFAULT
	}
	if err := r.write(n, m.control, d.control); err != nil {
		return 0, unix.EFAULT
	}
	if m.name != 0 {
		if errno := r.writeSockaddr(n, m.name, at+offNameLen, s.domain, d.from); errno != 0 {
			return 0, errno
		}
	}
	var tail [12]byte // msg_controllen and msg_flags
	binary.LittleEndian.PutUint64(tail[:], uint64(len(d.control)))
	binary.LittleEndian.PutUint32(tail[8:], uint32(d.flags&^unix.MSG_CMSG_CLOEXEC))
	if err := r.write(n, at+offCtlLen, tail[:]); err != nil {
		return 0, unix.EFAULT
	}
	return d.size, 0
}
