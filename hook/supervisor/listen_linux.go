package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
)

// publishTimeout bounds the wait for the daemon: a program stands in listen(2).
const publishTimeout = time.Second

// listen answers listen(2). A listener on the laptop's loopback or on one of its
// addresses becomes a socket of the laptop, so that debuggers, browsers and
// same-user checks find it where it says it is. One on the wildcard address or on
// the pod's stays in the session, sees its peers' real addresses, and the daemon
// publishes its port on the laptop's loopback.
func (s *supervisor) listen(n *notification, fd, backlog int) verdict {
	dup, err := borrow(int(n.Pid), fd)
	if errors.Is(err, unix.EBADF) {
		return leave(nil)
	}
	if err != nil {
		s.hidden.Do(func() {
			s.logger.Warn("what a program listens on cannot be seen, its port stays inside the session", "pid", n.Pid, "err", err)
		})
		return leave(err)
	}
	defer unix.Close(dup)
	f, ok := factsOf(dup)
	if !ok || !f.stream() || f.listening || f.namespace == s.namespace {
		return leave(nil)
	}
	if at, err := s.home.contains(int(n.Pid), f.domain); !at {
		return leave(err)
	}
	if f.at.Port() == 0 {
		if f, err = bindAny(dup, f); err != nil {
			return fail(errnoOf(err), err)
		}
	}
	return s.place(n, dup, f, backlog)
}

// bindAny gives a socket that was never bound a port, as listen(2) would, so that
// it can be published before it listens.
func bindAny(fd int, f socketFacts) (socketFacts, error) {
	var wildcard unix.Sockaddr = &unix.SockaddrInet4{}
	if f.domain == unix.AF_INET6 {
		wildcard = &unix.SockaddrInet6{}
	}
	if err := unix.Bind(fd, wildcard); err != nil {
		return f, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return f, err
	}
	f.name, f.at = name, farend.AddrPort(name)
	return f, nil
}

// place decides where the listener lives.
func (s *supervisor) place(n *notification, dup int, f socketFacts, backlog int) verdict {
	who, err := s.tree.of(int(n.Pid), s.identity)
	if err != nil {
		return fail(errnoOf(err), err)
	}
	switch a := f.at.Addr(); {
	case a.IsUnspecified(), slices.Contains(who.Addrs, a):
		return s.publish(who.Ports, dup, f)
	case a.IsLoopback(), isOurs(a):
		return s.move(n, who.Ports, dup, f, backlog)
	default:
		return fail(unix.EADDRNOTAVAIL, fmt.Errorf("%s is neither the pod's nor this machine's", a))
	}
}

// isOurs reports whether an interface of the laptop has the address.
func isOurs(a netip.Addr) bool {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(nets, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr() == a
	})
}

// publish asks the daemon for the port and lets the program listen.
func (s *supervisor) publish(ports Ports, dup int, f socketFacts) verdict {
	if ports == nil {
		return leave(nil)
	}
	only, _ := unix.GetsockoptInt(dup, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
	defer cancel()
	err := ports.Publish(ctx, f.at, f.domain == unix.AF_INET6 && only != 0)
	switch {
	case err == nil:
	case errors.Is(err, unix.EADDRINUSE):
		s.logger.Warn(fmt.Sprintf("port %d is in use on this machine", f.at.Port()),
			"hint", fmt.Sprintf("ss -ltnp 'sport = :%d' shows by whom; with up --publish none, or --publish OTHER:%[1]d, the program may have it", f.at.Port()))
		return fail(unix.EADDRINUSE, err)
	case errors.Is(err, unix.EACCES):
		s.logger.Warn(fmt.Sprintf("port %d cannot be published on this machine, only the pod's side and this session reach it", f.at.Port()),
			"hint", fmt.Sprintf("up --publish %d:%d publishes it as another port", int(f.at.Port())+8000, f.at.Port()))
	default:
		s.logger.Warn(fmt.Sprintf("port %d is not published on this machine", f.at.Port()), "err", err)
	}
	return leave(nil)
}

// move makes the listener a socket of the laptop: a new one that listens already
// takes the place of the program's.
func (s *supervisor) move(n *notification, ports Ports, dup int, f socketFacts, backlog int) verdict {
	fresh, err := s.moved.find(f.cookie) // another process of the program was here before
	if err == nil {
		err = unix.Listen(fresh, backlog)
	} else {
		fresh, err = hostListener(dup, f, backlog)
		if errors.Is(err, unix.EADDRINUSE) && ports != nil {
			ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
			_ = ports.Publish(ctx, f.at, false) // makes room where it can, and opens nothing
			cancel()
			fresh, err = hostListener(dup, f, backlog)
		}
	}
	if errors.Is(err, unix.EACCES) {
		s.logger.Warn(fmt.Sprintf("port %d of this machine is not for everybody, the listener stays inside the session", f.at.Port()))
		return leave(err)
	}
	if err != nil {
		return fail(errnoOf(err), err)
	}
	defer unix.Close(fresh)
	if err := s.replace(n, f.ino, fresh); err != nil {
		return fail(errnoOf(err), err)
	}
	s.moved.note(f.cookie, fresh)
	s.reserved.Keep(dup)
	return verdict{}
}

// hostListener is a listener of the laptop, bound as the program's is.
func hostListener(dup int, f socketFacts, backlog int) (int, error) {
	fresh, err := unix.Socket(f.domain, f.typ|unix.SOCK_CLOEXEC, f.proto)
	if err != nil {
		return -1, err
	}
	copyOptions(dup, fresh)
	if f.at.Port() >= farend.FirstAutoPort {
		// The program asked for any port, and the kernel that chose does not know that the
		// laptop still remembers closed connections on this one. It stays set: those that
		// are to come must not be in the way of the next either.
		_ = unix.SetsockoptInt(fresh, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	err = bindAndListen(fresh, f, backlog)
	if err != nil {
		unix.Close(fresh)
		return -1, err
	}
	return fresh, nil
}

func bindAndListen(fd int, f socketFacts, backlog int) error {
	if err := unix.Bind(fd, f.name); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}
