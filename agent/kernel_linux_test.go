package agent

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// TestErrorsOfOneDatagram: what a router or host says about one datagram does
// not end the socket that others use.
func TestErrorsOfOneDatagram(t *testing.T) {
	for _, tt := range []struct {
		errno syscall.Errno
		want  bool
	}{
		{syscall.ECONNREFUSED, true}, // port unreachable
		{syscall.EHOSTUNREACH, true},
		{syscall.ENETUNREACH, true},
		{syscall.ENOPROTOOPT, true}, // protocol unreachable
		{syscall.EMSGSIZE, true},    // fragmentation needed
		{syscall.EOPNOTSUPP, true},  // source route failed
		{syscall.EHOSTDOWN, true},
		{syscall.ENONET, true}, // host isolated
		{syscall.EACCES, true}, // ICMPv6: prohibited
		{syscall.EPROTO, true}, // ICMPv6: parameter problem
		{syscall.ENOMEM, false},
		{syscall.EBADF, false},
	} {
		err := &net.OpError{Op: "read", Net: "udp", Err: os.NewSyscallError("recvfrom", tt.errno)}
		if got := isICMPError(err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.errno, got, tt.want)
		}
	}
	if isICMPError(net.ErrClosed) {
		t.Error("a closed socket is taken for an ICMP error")
	}
}
