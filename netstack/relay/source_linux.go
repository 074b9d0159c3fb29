package relay

import (
	"io"
	"net"
	"os"
	"syscall"
)

// kernelSource returns c as a source if it is a socket of the kernel, else nil.
func kernelSource(c Conn) source {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil // closed: Read says so
	}
	return &socket{raw}
}

// socket is a TCP socket of the kernel.
type socket struct{ raw syscall.RawConn }

// ReadLazily does what net's Read does, but for the buffer.
func (s *socket) ReadLazily(take func() []byte, giveBack func()) (n int, err error) {
	waitErr := s.raw.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), take())
			switch err {
			case syscall.EINTR:
			case syscall.EAGAIN:
				giveBack()
				return false
			default:
				return true
			}
		}
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
