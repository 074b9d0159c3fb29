package supervisor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// verdict is the answer to a notification.
type verdict struct {
	proceed bool          // let the kernel do what the program asked
	val     int64         // result, unless proceed or errno
	errno   syscall.Errno // error, unless proceed
	why     error         // for the log, may be nil
}

func (v verdict) String() string {
	switch {
	case v.proceed:
		return "proceed"
	case v.errno != 0:
		return v.errno.Error()
	}
	return fmt.Sprintf("fd %d", v.val)
}

// leave lets the kernel do what the program asked.
func leave(why error) verdict { return verdict{proceed: true, why: why} }

func fail(errno syscall.Errno, why error) verdict { return verdict{errno: errno, why: why} }

// decide judges the call. What is not understood is left alone.
func (s *supervisor) decide(n *notification) verdict {
	a, ok := s.machine.of(n.Arch)
	if !ok {
		return leave(fmt.Errorf("unknown architecture %#x", n.Arch))
	}
	nr, args := n.Nr, n.Args
	if a.socketcall != 0 && nr == a.socketcall {
		call := args[0]
		words, err := s.words(n, args[1])
		if err != nil {
			return leave(err)
		}
		args = [6]uint64{words[0], words[1], words[2]}
		switch call {
		case callSocket:
			nr = a.socket
		case callConnect:
			nr = a.connect
		}
	}
	switch nr {
	case a.socket:
		return s.socket(n, int(int32(args[0])), int(int32(args[1])), int(int32(args[2])))
	case a.connect:
		return s.connect(n, args[1], uint32(args[2]))
	}
	return leave(fmt.Errorf("unexpected system call %d", n.Nr))
}

// words reads the three arguments that socketcall(2) takes from memory.
func (s *supervisor) words(n *notification, addr uint64) ([3]uint64, error) {
	var w [3]uint64
	var buf [12]byte
	m, err := readMemory(int(n.Pid), addr, buf[:])
	if err != nil {
		return w, err
	}
	if m < len(buf) {
		return w, fmt.Errorf("read socketcall arguments: %w", unix.EFAULT)
	}
	if !s.alive(n) {
		return w, unix.ENOENT
	}
	for i := range w {
		w[i] = uint64(binary.LittleEndian.Uint32(buf[4*i:]))
	}
	return w, nil
}

// socket answers socket(2) with a socket of the session.
func (s *supervisor) socket(n *notification, domain, typ, proto int) verdict {
	if at, err := s.home.contains(int(n.Pid), domain); !at {
		return leave(err)
	}
	fd, err := s.sockets.Socket(domain, typ&^unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return fail(errnoOf(err), err)
	}
	defer unix.Close(fd)
	got, err := s.inject(n, fd, typ&unix.SOCK_CLOEXEC != 0)
	if err != nil {
		// EMFILE above all: the limit of the program, which must hear of it.
		return fail(errnoOf(err), fmt.Errorf("inject socket: %w", err))
	}
	return verdict{val: int64(got)}
}

// connect refuses the sockets of name services that resolve names by themselves,
// outside the session: without them libc asks DNS, from its own socket.
func (s *supervisor) connect(n *notification, addr uint64, size uint32) verdict {
	var buf [sizeofSockaddrUnix]byte
	if size < 2 || size > sizeofSockaddrUnix {
		return leave(nil)
	}
	m, err := readMemory(int(n.Pid), addr, buf[:size])
	if err != nil {
		return leave(err)
	}
	if !s.alive(n) {
		return leave(unix.ENOENT)
	}
	if p, ok := unixPath(buf[:m]); ok && resolvesNames(p) {
		return fail(unix.ENOENT, fmt.Errorf("connect to %s", p))
	}
	return leave(nil)
}

// unixPath returns the file that a socket address names (unix(7)).
func unixPath(sa []byte) (string, bool) {
	if len(sa) < 3 || binary.LittleEndian.Uint16(sa) != afUnix || sa[2] == 0 {
		return "", false
	}
	p := sa[2:]
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return string(p), true
}

// resolvesNames reports whether a name service listens at the path p: nscd, or
// systemd-resolved's varlink interface, which nss-resolve uses.
func resolvesNames(p string) bool {
	p = path.Clean(p)
	if rest, ok := strings.CutPrefix(p, "/var/run/"); ok {
		p = "/run/" + rest
	}
	return p == "/run/nscd/socket" || strings.HasPrefix(p, "/run/systemd/resolve/")
}
