package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The protocol of the socket service: a request is three little-endian words,
// the arguments of socket(2); the answer is one byte, an errno, and with errno 0
// a descriptor.
const requestSize = 12

// maxClients bounds the service: each client is one thread in a blocking read,
// which answers several microseconds sooner than the poller would.
const maxClients = 512

// service makes sockets for programs outside the namespace.
type service struct {
	path string
	ino  unix.Stat_t // of the socket file, so that nobody else's is removed
	ln   *net.UnixListener
	uid  uint32

	mu      sync.Mutex
	clients map[int]struct{} // guarded by mu: descriptors being served
	closed  bool             // guarded by mu
	wg      sync.WaitGroup   // one per client
}

// checkPath refuses a path that does not fit a unix socket address (unix(7)).
func checkPath(path string) error {
	if len(path) > len(unix.RawSockaddrUnix{}.Path)-1 {
		return fmt.Errorf("listen on %s: %w: longer than %d bytes", path, unix.ENAMETOOLONG, len(unix.RawSockaddrUnix{}.Path)-1)
	}
	return nil
}

// listen creates the socket file, mode 0600 from the first moment.
func listen(path string) (*service, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177)
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen for programs: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	s := &service{path: path, ln: ln, uid: uint32(os.Getuid()), clients: make(map[int]struct{})}
	if err := unix.Lstat(path, &s.ino); err != nil {
		ln.Close()
		return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return s, nil
}

// removeStale removes a socket file that nobody listens on any more.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("listen on %s: %w: it is not a socket", path, fs.ErrExist)
	}
	c, err := net.DialTimeout("unixpacket", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("listen on %s: %w", path, unix.EADDRINUSE)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("probe %s: %w", path, err)
	}
	return os.Remove(path)
}

// run accepts clients until close.
func (s *service) run() {
	for {
		c, err := s.ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or memory: a client that gives up frees some.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.admit(c)
	}
}

// admit starts serving c if it belongs to the owner of the session, and else
// closes it.
func (s *service) admit(c *net.UnixConn) {
	fd, err := s.blocking(c)
	c.Close()
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.clients) >= maxClients {
		unix.Close(fd)
		return
	}
	s.clients[fd] = struct{}{}
	s.wg.Go(func() { s.serve(fd) }) // ends when the client closes, or at close
}

// blocking checks who the client is and returns a descriptor of its connection
// that the poller does not watch.
func (s *service) blocking(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var cerr error
	err = raw.Control(func(conn uintptr) {
		var cred *unix.Ucred
		if cred, cerr = unix.GetsockoptUcred(int(conn), unix.SOL_SOCKET, unix.SO_PEERCRED); cerr != nil {
			return
		}
		if cred.Uid != s.uid {
			cerr = unix.EPERM
			return
		}
		if fd, cerr = unix.FcntlInt(conn, unix.F_DUPFD_CLOEXEC, 0); cerr != nil {
			return
		}
		if cerr = unix.SetNonblock(fd, false); cerr != nil {
			unix.Close(fd)
		}
	})
	return fd, errors.Join(err, cerr)
}

// serve answers one client's requests in order.
func (s *service) serve(fd int) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, fd)
		unix.Close(fd)
	}()
	var req [requestSize + 1]byte
	for {
		n, err := unix.Read(fd, req[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != requestSize {
			return // gone, or not one of ours
		}
		if !answer(fd, req[:n]) {
			return
		}
	}
}

// answer makes one socket and reports whether the client is still there.
func answer(client int, req []byte) bool {
	domain := int(int32(binary.LittleEndian.Uint32(req[0:])))
	typ := int(int32(binary.LittleEndian.Uint32(req[4:])))
	proto := int(int32(binary.LittleEndian.Uint32(req[8:])))
	fd, err := makeSocket(domain, typ, proto)
	reply := [1]byte{}
	var oob []byte
	if err != nil {
		errno := unix.EIO
		errors.As(err, &errno)
		reply[0] = byte(errno)
	} else {
		defer unix.Close(fd)
		oob = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(client, reply[:], oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// domainNamespace asks for a namespace of the helper's own instead of a socket:
// the type is CLONE_NEWUSER or CLONE_NEWNET. hook/preload/enter.c does so.
const domainNamespace = 0x424e

// makeSocket is socket(2) for the families that belong to the session. The
// helper has every capability over its namespace, so it must not make more.
func makeSocket(domain, typ, proto int) (int, error) {
	switch {
	case domain == unix.AF_INET, domain == unix.AF_INET6:
	case domain == unix.AF_NETLINK && (proto == unix.NETLINK_ROUTE || proto == unix.NETLINK_SOCK_DIAG):
	case domain == domainNamespace:
		return openNamespace(typ)
	case domain == domainReserved:
		return unix.Open(reservedPorts, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	default:
		return -1, unix.EAFNOSUPPORT
	}
	return unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
}

// openNamespace opens one of the namespaces that this process is in.
func openNamespace(which int) (int, error) {
	name := "user"
	switch which {
	case unix.CLONE_NEWUSER:
	case unix.CLONE_NEWNET:
		name = "net"
	default:
		return -1, unix.EINVAL
	}
	return unix.Open("/proc/self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// close removes the socket file and ends every client.
func (s *service) close() {
	s.mu.Lock()
	s.closed = true
	for fd := range s.clients {
		unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	s.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Lstat(s.path, &st); err == nil && st.Ino == s.ino.Ino && st.Dev == s.ino.Dev {
		os.Remove(s.path)
	}
	s.ln.Close()
	s.wg.Wait()
}
