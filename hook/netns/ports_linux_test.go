package netns

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/hooktest"

	"github.com/borrownet/borrownet/netstack/flow"
)

// TestPorts lists what waits to be spoken to, and nothing else.
func TestPorts(t *testing.T) {
	_, c := start(t, pod4, pod6)
	bind := func(domain, typ int, at string, v6only bool) int {
		t.Helper()
		fd := socket(t, c, domain, typ)
		if v6only {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Bind(fd, sockaddr(netip.MustParseAddrPort(at))); err != nil {
			t.Fatal(err)
		}
		if typ == unix.SOCK_STREAM {
			if err := unix.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
		}
		return fd
	}
	bind(unix.AF_INET, unix.SOCK_STREAM, "0.0.0.0:8080", false)
	bind(unix.AF_INET6, unix.SOCK_STREAM, "[::]:8081", false)
	bind(unix.AF_INET6, unix.SOCK_STREAM, "[::]:8082", true)
	ended := bind(unix.AF_INET, unix.SOCK_STREAM, pod4.String()+":8083", false)
	bind(unix.AF_INET, unix.SOCK_DGRAM, "127.0.0.1:8125", false)
	peer := bind(unix.AF_INET, unix.SOCK_DGRAM, "0.0.0.0:8126", false)
	if err := unix.Connect(peer, sockaddr(netip.AddrPortFrom(far4, 53))); err != nil {
		t.Fatal(err)
	}
	socket(t, c, unix.AF_INET, unix.SOCK_DGRAM)
	unix.Shutdown(ended, unix.SHUT_RDWR)
	got, err := c.Ports()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b Port) int { return int(a.At.Port()) - int(b.At.Port()) })
	at := netip.MustParseAddrPort
	want := []Port{
		{Proto: flow.TCP, At: at("0.0.0.0:8080")},
		{Proto: flow.TCP, At: at("[::]:8081"), IPv6: true},
		{Proto: flow.TCP, At: at("[::]:8082"), IPv6: true, V6Only: true},
		{Proto: flow.UDP, At: at("127.0.0.1:8125")},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func FuzzParsePorts(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 16+sizeofDiagMsg))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseDump(b, func(msg []byte) { parsePort(msg, flow.TCP) })
	})
}

// TestDialTCP reaches listeners that no packet from outside can: ::1, and the
// pod's own address.
func TestDialTCP(t *testing.T) {
	_, c := start(t, pod4, pod6)
	for _, at := range []string{"[::1]:8080", pod4.String() + ":8081", "[" + pod6.String() + "]:8082"} {
		dst := netip.MustParseAddrPort(at)
		ln := socket(t, c, domainOf(dst.Addr()), unix.SOCK_STREAM)
		if err := unix.Bind(ln, sockaddr(dst)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(ln, 1); err != nil {
			t.Fatal(err)
		}
		conn, err := c.DialTCP(t.Context(), dst)
		if err != nil {
			t.Fatal(err)
		}
		var fd int
		if err := hooktest.Again(func() (err error) { fd, _, err = unix.Accept(ln); return err }); err != nil {
			t.Fatal(err)
		}
		unix.Write(fd, []byte("inside"))
		unix.Close(fd)
		if b, err := io.ReadAll(conn); err != nil || string(b) != "inside" {
			t.Errorf("%s: %q, %v", at, b, err)
		}
		conn.Close()
	}
	if _, err := c.DialTCP(t.Context(), netip.AddrPortFrom(pod4, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("closed port: %v", err)
	}
}

// TestEndAbortsSockets: who waits on a socket when the session ends hears of it.
func TestEndAbortsSockets(t *testing.T) {
	h, c := start(t, pod4)
	fd := socket(t, c, unix.AF_INET, unix.SOCK_STREAM)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 30}); err != nil {
		t.Fatal(err)
	}
	if err := c.abortable(); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("needs a kernel with CONFIG_INET_DIAG_DESTROY")
	}
	outcome := make(chan error, 1)
	go func() {
		err := unix.EINTR // the runtime's signals interrupt it
		for err == unix.EINTR {
			err, _ = unix.Connect(fd, sockaddr(netip.AddrPortFrom(far4, 80))).(unix.Errno)
		}
		outcome <- err
	}()
	expect(t, h, "SYN", func(p packet) bool { return p.proto == protoTCP })
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err != unix.ECONNABORTED {
		t.Errorf("connect: %v, want ECONNABORTED", err)
	}
}

// abortable asks the kernel to abort a socket that does not exist.
func (c *Client) abortable() error {
	fd, err := c.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req := diagRequest(sockDestroy, unix.AF_INET, flow.TCP, allDiagStates)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return dump(fd, req, func([]byte) {})
}

// TestDeviceIsThePods: a program that binds to the pod's device by name may.
func TestDeviceIsThePods(t *testing.T) {
	_, c := start(t, pod4)
	fd := socket(t, c, unix.AF_INET, unix.SOCK_DGRAM)
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "eth0"); err != nil {
		t.Error(err)
	}
	if dev, _ := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); !strings.HasPrefix(dev, "eth0") {
		t.Errorf("bound to %q", dev)
	}
}
