package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/switchboard"
)

// relay answers for the relay rung: programs have sockets of the laptop's own
// network namespace, and each flow that is not the laptop's is carried by the
// daemon to a far end on the loopback device.
//
// socket(2) is answered with a socket of which a duplicate is kept. connect(2) of
// a program is done on that duplicate, which is the same open file: towards a far
// end when the daemon has opened the flow, else not at all. So nothing is read
// from a program's memory twice, and no descriptor of a program changes.
type relay struct {
	sup   *supervisor
	far   *switchboard.Client
	table *relayTable

	ctx    context.Context // done at stop
	cancel context.CancelFunc
	wg     sync.WaitGroup // what goes on after answers, the sweep

	datagrams atomic.Int64 // flows of datagram sockets: none, and receiving is native
}

func newRelay(sup *supervisor, far *switchboard.Client) *relay {
	r := &relay{sup: sup, far: far, table: newRelayTable()}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.wg.Go(r.sweep)
	return r
}

// close ends every answer that waits and gives all descriptors back.
func (r *relay) close() {
	r.cancel()
	for _, s := range r.table.all() {
		s.mu.Lock()
		if s.connecting { // perhaps in connect(2), to a listener with a full queue
			_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
		}
		s.mu.Unlock()
		r.table.release(s)
	}
	r.sup.wg.Wait()
	r.wg.Wait()
	r.table.clear()
}

// decide judges the call. It does not wait: a verdict that takes time is a
// function of its own.
func (r *relay) decide(n *notification, c trap) verdict {
	a := c.abi
	switch c.nr {
	case a.socket:
		return r.socket(n, int(int32(c.args[0])), int(int32(c.args[1])), int(int32(c.args[2])))
	case a.connect:
		return r.connect(n, c)
	case a.bind:
		return r.bind(n, c)
	case a.listen:
		return r.listen(n, c)
	case a.getpeername:
		return r.getpeername(n, c)
	case a.sendto:
		return r.sendto(n, c)
	case a.recvfrom:
		return r.recvfrom(n, c)
	case a.sendmsg, a.sendmmsg:
		if c.compat {
			return r.sendCompat(n, c)
		}
		return r.sendmsg(n, c, c.nr == a.sendmmsg)
	case a.recvmsg, a.recvmmsg:
		if !c.compat {
			return r.recvmsg(n, c, c.nr == a.recvmmsg)
		}
	}
	return leave(nil)
}

// kind is the part of a socket type that is not a flag.
const kind = 0xf

// socket answers socket(2) with a socket of the laptop's own namespace.
func (r *relay) socket(n *notification, domain, typ, proto int) verdict {
	if at, err := r.sup.home.contains(int(n.Pid), domain); !at {
		return leave(err)
	}
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return leave(nil) // of socketcall(2), whose arguments no filter sees
	}
	proto, refusal := carried(typ&kind, proto)
	if refusal != 0 {
		return fail(refusal, fmt.Errorf("socket type %d, protocol %d is not relayed", typ&kind, proto))
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	if (err == unix.EMFILE || err == unix.ENFILE) && r.table.settle(1, 0) > 0 {
		fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	}
	if err != nil {
		return fail(errnoOf(err), err)
	}
	if typ&kind == unix.SOCK_DGRAM {
		// Whatever it sends and by whatever call: nothing leaves the machine.
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"); err != nil {
			unix.Close(fd)
			return fail(unix.ENETDOWN, fmt.Errorf("bind socket to loopback: %w", err))
		}
	}
	s, err := r.table.add(fd, domain, typ&kind)
	if err != nil {
		unix.Close(fd)
		return fail(unix.ENFILE, err)
	}
	got, err := r.sup.inject(n, fd, typ&unix.SOCK_CLOEXEC != 0)
	if err != nil {
		r.table.drop(s)
		return fail(errnoOf(err), fmt.Errorf("inject socket: %w", err))
	}
	r.table.given(s)
	return verdict{val: int64(got)}
}

// carried returns the protocol of a socket that can be relayed, or why there is
// no such socket, as the kernel would say it.
func carried(kind, proto int) (int, syscall.Errno) {
	switch kind {
	case unix.SOCK_STREAM:
		switch proto {
		case 0, unix.IPPROTO_TCP:
			return proto, 0
		case unix.IPPROTO_MPTCP:
			return 0, 0 // one path there is
		}
		return proto, unix.EPROTONOSUPPORT
	case unix.SOCK_DGRAM:
		switch proto {
		case 0, unix.IPPROTO_UDP:
			return proto, 0
		case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
			return proto, unix.EACCES // as outside ping_group_range
		}
		return proto, unix.EPROTONOSUPPORT
	case unix.SOCK_RAW:
		return proto, unix.EPERM
	}
	return proto, unix.ESOCKTNOSUPPORT
}

// connect decides who connects: the kernel, where the socket is not one of ours,
// else this process on its duplicate.
func (r *relay) connect(n *notification, c trap) verdict {
	sa, err := r.sockaddr(n, c.args[1], uint32(c.args[2]))
	if err != nil {
		return unreadable(uint32(c.args[2]), err)
	}
	s, ino, err := r.table.acquire(int(n.Pid), int(int32(c.args[0])))
	if err != nil {
		return unreadable(uint32(c.args[2]), err)
	}
	if s == nil {
		return r.connectForeign(n, sa, ino)
	}
	if family(sa) == unix.AF_UNSPEC {
		defer r.table.release(s)
		return s.disconnect(sa)
	}
	dst, errno := s.destination(sa)
	if errno != 0 {
		r.table.release(s)
		return fail(errno, nil)
	}
	if isLaptops(dst) && dst.Port() != portDNS {
		if s.typ == unix.SOCK_DGRAM {
			defer r.table.release(s)
			return s.connectNative(dst, sa)
		}
		return wait(func() verdict {
			defer r.table.release(s)
			return r.connectLaptop(s, dst, sa)
		})
	}
	return wait(func() verdict {
		defer r.table.release(s)
		if s.typ == unix.SOCK_DGRAM {
			return r.connectUDP(s, dst, sa)
		}
		return r.connectTCP(n, s, dst, sa)
	})
}

// connectForeign judges connect(2) on what is not tracked: no internet socket,
// or one that the program was born with, or one that is connected already.
func (r *relay) connectForeign(n *notification, sa []byte, ino uint64) verdict {
	if f := family(sa); f != unix.AF_INET && f != unix.AF_INET6 {
		return r.sup.connectUnix(n, sa)
	}
	dst, ok := parseSockaddr(sa)
	if _, connected := r.table.peer(ino); connected {
		return fail(unix.EISCONN, nil)
	}
	if ok && isLaptops(dst) {
		return leave(nil)
	}
	if at, err := r.sup.home.contains(int(n.Pid), unix.AF_INET); !at {
		return leave(err)
	}
	return fail(unix.ENETUNREACH, errors.New("socket was not made in the session"))
}

// disconnect is connect(2) with AF_UNSPEC.
func (s *relaySocket) disconnect(sa []byte) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := farend.Name(s.fd)
	if err := connectRaw(s.fd, sa); err != nil {
		return fail(errnoOf(err), nil)
	}
	s.peer = netip.AddrPort{}
	if s.typ == unix.SOCK_DGRAM && farend.Name(s.fd).Port() != was.Port() {
		s.flows.close() // their far ends know the old port
	}
	return verdict{}
}

// connectNative connects a socket to the laptop itself.
func (s *relaySocket) connectNative(dst netip.AddrPort, sa []byte) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := connectRaw(s.fd, sa); err != nil {
		return fail(errnoOf(err), nil)
	}
	if s.typ == unix.SOCK_DGRAM {
		s.peer = dst
	}
	return verdict{}
}

// bind lets go of sockets that a program has closed if one of them still has the
// port: "find a free port, close, bind it" is common.
func (r *relay) bind(n *notification, c trap) verdict {
	sa, err := r.sockaddr(n, c.args[1], uint32(c.args[2]))
	if err != nil {
		return leave(err) // binding sends nothing
	}
	want, ok := parseSockaddr(sa)
	if !ok || want.Port() == 0 || !r.table.hasPort(want.Port()) {
		return leave(nil)
	}
	return wait(func() verdict {
		r.table.settle(1, want.Port())
		return leave(nil)
	})
}

// listen lets go of the socket: a listener is the laptop's own.
func (r *relay) listen(n *notification, c trap) verdict {
	s, _, err := r.table.acquire(int(n.Pid), int(int32(c.args[0])))
	if s == nil {
		return leave(err)
	}
	r.table.release(s)
	if s.typ == unix.SOCK_STREAM {
		r.table.drop(s)
	}
	return leave(nil)
}

// getpeername names the destination of a flow, not its far end.
func (r *relay) getpeername(n *notification, c trap) verdict {
	pid := int(n.Pid)
	s, ino, err := r.table.acquire(pid, int(int32(c.args[0])))
	if err != nil {
		return leave(err)
	}
	p, ok := r.table.peer(ino)
	if s != nil {
		s.mu.Lock()
		p, ok = peer{domain: s.domain, addr: s.peer}, s.peer.IsValid() && farend.Peer(s.fd).IsValid()
		s.mu.Unlock()
		r.table.release(s)
	}
	if !ok {
		return leave(nil)
	}
	if errno := r.writeSockaddr(n, c.args[1], c.args[2], p.domain, p.addr); errno != 0 {
		return fail(errno, nil)
	}
	return verdict{}
}

// unreadable is the verdict about a connect whose caller cannot be looked into.
// An address as long as that of an internet socket may be one.
func unreadable(size uint32, err error) verdict {
	switch {
	case errors.Is(err, unix.EFAULT):
		return fail(unix.EFAULT, err)
	case errors.Is(err, unix.EBADF):
		return fail(unix.EBADF, err)
	case errors.Is(err, unix.EINVAL):
		return fail(unix.EINVAL, err)
	case size == sizeofSockaddrInet4 || size == sizeofSockaddrInet6 || size == sizeofSockaddrStorage:
		return fail(unix.ENETUNREACH, fmt.Errorf("cannot look into the caller: %w", err))
	}
	return leave(err)
}
