package supervisor

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// verdict is the answer to a notification.
type verdict struct {
	proceed bool          // let the kernel do what the program asked
	val     int64         // result, unless proceed or errno
	errno   syscall.Errno // error, unless proceed
	why     error         // for the log, may be nil

	// later, if set, is still to be called for the verdict, and may wait.
	later func() verdict
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

// wait says that the verdict takes time.
func wait(later func() verdict) verdict { return verdict{later: later} }

func fail(errno syscall.Errno, why error) verdict { return verdict{errno: errno, why: why} }

// trap is a trapped system call as its convention's own number and arguments,
// however it was made.
type trap struct {
	abi    abi
	compat bool
	nr     int32
	args   [6]uint64
}

// decide judges the call. What is not understood is left alone.
func (s *supervisor) decide(n *notification) verdict {
	c, err := s.call(n)
	if err != nil {
		return leave(err)
	}
	if s.relay != nil {
		return s.relay.decide(n, c)
	}
	switch c.nr {
	case c.abi.socket:
		return s.socket(n, int(int32(c.args[0])), int(int32(c.args[1])), int(int32(c.args[2])))
	case c.abi.connect:
		return s.connect(n, c)
	case c.abi.listen:
		return wait(func() verdict { return s.listen(n, int(int32(c.args[0])), int(int32(c.args[1]))) })
	}
	return leave(fmt.Errorf("unexpected system call %d", n.Nr))
}

// call unwraps socketcall(2).
func (s *supervisor) call(n *notification) (trap, error) {
	a, ok := s.machine.of(n.Arch)
	if !ok {
		return trap{}, fmt.Errorf("unknown architecture %#x", n.Arch)
	}
	c := trap{abi: a, compat: n.Arch == s.machine.compat.arch, nr: n.Nr, args: n.Args}
	if a.socketcall == 0 || n.Nr != a.socketcall {
		return c, nil
	}
	nr, words := a.unwrap(n.Args[0])
	if nr == 0 {
		return trap{}, fmt.Errorf("unexpected socketcall %d", n.Args[0])
	}
	var err error
	c.nr = nr
	c.args, err = s.words(n, n.Args[1], words)
	return c, err
}

// unwrap returns the system call behind a call of socketcall(2), and how many
// arguments it has; 0 for those that are not watched.
func (a abi) unwrap(call uint64) (nr int32, args int) {
	switch call {
	case callSocket:
		return a.socket, 3
	case callBind:
		return a.bind, 3
	case callConnect:
		return a.connect, 3
	case callListen:
		return a.listen, 2
	case callGetpeername:
		return a.getpeername, 3
	case callSendto:
		return a.sendto, 6
	case callRecvfrom:
		return a.recvfrom, 6
	case callSendmsg:
		return a.sendmsg, 3
	case callSendmmsg:
		return a.sendmmsg, 4
	}
	return 0, 0
}

// words reads the arguments that socketcall(2) takes from memory.
func (s *supervisor) words(n *notification, addr uint64, count int) ([6]uint64, error) {
	var w [6]uint64
	var buf [24]byte
	m, err := readMemory(int(n.Pid), addr, buf[:4*count])
	if err != nil {
		return w, err
	}
	if m < 4*count {
		return w, fmt.Errorf("read socketcall arguments: %w", unix.EFAULT)
	}
	if !s.alive(n) {
		return w, unix.ENOENT
	}
	for i := range count {
		w[i] = uint64(binary.LittleEndian.Uint32(buf[4*i:]))
	}
	return w, nil
}

// socket answers socket(2) with a socket of the session.
func (s *supervisor) socket(n *notification, domain, typ, proto int) verdict {
	if at, err := s.home.contains(int(n.Pid), domain); !at {
		return leave(err)
	}
	who, err := s.tree.of(int(n.Pid), s.identity)
	if err != nil {
		return fail(errnoOf(err), err)
	}
	fd, err := who.Sockets.Socket(domain, typ&^unix.SOCK_CLOEXEC, proto)
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
