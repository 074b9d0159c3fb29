package netstack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// inNamespace is set in the environment of the test process that runs in
// namespaces of its own.
const inNamespace = "BORROWNET_TEST_IN_NAMESPACE"

// needsNamespace reports whether the test runs in namespaces of its own, where
// it may make devices. If it does not, needsNamespace runs it there, and the
// caller returns.
func needsNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		skip(t, fmt.Sprintf("needs netns: make user and network namespace: %v", err))
	}
	err := cmd.Wait()
	if _, reason, skipped := strings.Cut(out.String(), "needs netns: "); skipped {
		reason, _, _ = strings.Cut(reason, "\n")
		skip(t, "needs netns: "+reason)
	}
	if err != nil {
		t.Errorf("in its namespace: %v\n%s", err, &out)
	}
	return false
}

// skip skips the test, or fails it where netns is required.
func skip(t *testing.T, reason string) {
	t.Helper()
	for _, r := range strings.Split(os.Getenv("BORROWNET_REQUIRE"), ",") {
		if r == "netns" || r == "all" {
			t.Fatal(reason)
		}
	}
	t.Skip(reason)
}

const tunName, tunMTU = "tun0", 65440

// openTUN makes a TUN device that has the client's addresses and to which
// every route leads.
func openTUN(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		skip(t, fmt.Sprintf("needs netns: open TUN: %v", err))
	}
	request, err := unix.NewIfreq(tunName)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		skip(t, fmt.Sprintf("needs netns: make TUN: %v", err))
	}
	tun := os.NewFile(uintptr(fd), "/dev/net/tun")
	t.Cleanup(func() { tun.Close() })
	configure(t)
	return tun
}

func configure(t *testing.T) {
	t.Helper()
	s4, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s4)
	set := func(what string, op uint, fill func(r *unix.Ifreq)) {
		t.Helper()
		r, err := unix.NewIfreq(tunName)
		if err != nil {
			t.Fatal(err)
		}
		fill(r)
		if err := unix.IoctlIfreq(s4, op, r); err != nil {
			t.Fatalf("set %s of %s: %v", what, tunName, err)
		}
	}
	set("MTU", unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(tunMTU) })
	set("address", unix.SIOCSIFADDR, func(r *unix.Ifreq) { r.SetInet4Addr(client4.AsSlice()) })
	set("flags", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) })
	// One bit makes all addresses of the tests neighbours; without a bit the
	// kernel makes no route.
	set("netmask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { r.SetInet4Addr([]byte{128, 0, 0, 0}) })

	device, err := net.InterfaceByName(tunName)
	if err != nil {
		t.Fatal(err)
	}
	s6, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s6)
	// struct in6_ifreq: address, prefix length, index.
	r6 := append(client6.AsSlice(), make([]byte, 8)...)
	binary.NativeEndian.PutUint32(r6[16:], 32)
	binary.NativeEndian.PutUint32(r6[20:], uint32(device.Index))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s6), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&r6[0]))); errno != 0 {
		t.Fatalf("set IPv6 address of %s: %v", tunName, errno)
	}
	// Until the kernel's worker has looked at it the address is tentative.
	await(t, "usable IPv6 address", func() bool {
		c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(port(client6, 0)))
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

// kernelStack returns a stack that is the kernel's only neighbour.
func kernelStack(t *testing.T) *netstack.Stack {
	t.Helper()
	tun := openTUN(t)
	s := netstacktest.New(t, serverConfig)
	var wg sync.WaitGroup
	wg.Go(func() { netstacktest.Carry(s, func(pkt []byte) { tun.Write(pkt) }) })
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := tun.Read(buf)
			if err != nil {
				return
			}
			s.Deliver(buf[:n])
		}
	})
	t.Cleanup(func() {
		s.Close()
		tun.Close()
		wg.Wait()
	})
	return s
}

// TestKernel checks against Linux what only Linux can tell: that it accepts
// our packets, and which errno it makes of them.
func TestKernel(t *testing.T) {
	if !needsNamespace(t) {
		return
	}
	s := kernelStack(t)
	t.Run("reject", func(t *testing.T) { kernelReject(t, s) })
	t.Run("tcp", func(t *testing.T) { kernelTCP(t, s) })
	t.Run("reset", func(t *testing.T) { kernelReset(t, s) })
	t.Run("udp", func(t *testing.T) { kernelUDP(t, s) })
	t.Run("dial-in", func(t *testing.T) { kernelDialIn(t, s) })
}

func kernelReject(t *testing.T, s *netstack.Stack) {
	tests := []struct {
		name   string
		reject error
		dst    netip.Addr
		want   error
	}{
		{"refused4", syscall.ECONNREFUSED, foreign4, syscall.ECONNREFUSED},
		{"refused6", syscall.ECONNREFUSED, foreign6, syscall.ECONNREFUSED},
		{"host4", syscall.EHOSTUNREACH, foreign4, syscall.EHOSTUNREACH},
		{"host6", syscall.EHOSTUNREACH, foreign6, syscall.EHOSTUNREACH},
		{"net4", syscall.ENETUNREACH, foreign4, syscall.ENETUNREACH},
		{"net6", syscall.ENETUNREACH, foreign6, syscall.ENETUNREACH},
		{"prohibited4", syscall.EACCES, foreign4, syscall.EHOSTUNREACH},
		{"prohibited6", syscall.EACCES, foreign6, syscall.EACCES},
		{"eperm6", syscall.EPERM, foreign6, syscall.EACCES},
		{"timeout", syscall.ETIMEDOUT, foreign4, os.ErrDeadlineExceeded},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.ForwardTCP(10, func(r *netstack.TCPRequest) { r.Reject(tt.reject) })
			before := s.Stats().TCPRejected
			d := net.Dialer{Timeout: patience}
			if tt.want == os.ErrDeadlineExceeded {
				d.Timeout = 300 * time.Millisecond
			}
			began := time.Now()
			c, err := d.DialContext(t.Context(), "tcp", port(tt.dst, uint16(8000+i)).String())
			took := time.Since(began)
			if err == nil {
				c.Close()
			}
			if tt.want == os.ErrDeadlineExceeded {
				var op *net.OpError
				if !errors.As(err, &op) || !op.Timeout() {
					t.Errorf("connect = %v, want a timeout", err)
				}
				return
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("connect = %v, want %v", err, tt.want)
			}
			// At once, that is at the first SYN.
			if n := s.Stats().TCPRejected - before; n == 0 || n > atMost(took) {
				t.Errorf("%d SYNs were rejected in %v, want 1", n, took)
			}
		})
	}
}

func kernelTCP(t *testing.T, s *netstack.Stack) {
	s.ForwardTCP(10, func(r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := io.Copy(c, c); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
	})
	for _, dst := range []netip.Addr{foreign4, foreign6} {
		c, err := net.Dial("tcp", port(dst, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		want := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
		go func() {
			c.Write(want)
			c.(*net.TCPConn).CloseWrite()
		}()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("echo of %d bytes is %d bytes, %v", len(want), len(got), err)
		}
	}
}

func kernelReset(t *testing.T, s *netstack.Stack) {
	s.ForwardTCP(10, func(r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		c.Read(make([]byte, 1))
		c.Reset()
	})
	c, err := net.Dial("tcp", port(foreign4, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read = %v, want ECONNRESET", err)
	}
}

func kernelUDP(t *testing.T, s *netstack.Stack) {
	s.ForwardUDP(func(f flow.Flow, payload []byte) {
		if f.Dst.Port() == 9 {
			s.SendUnreachable(f, syscall.ECONNREFUSED)
			return
		}
		s.SendUDP(f.Dst, f.Src, payload)
	})
	for _, dst := range []netip.Addr{foreign4, foreign6} {
		for _, size := range []int{0, 1, 1200, 65000, 65507} {
			if dst.Is6() && size == 65507 {
				size = 65487 // the kernel's own limit without a jumbogram
			}
			c, err := net.Dial("udp", port(dst, 7).String())
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(patience))
			want := bytes.Repeat([]byte{0x5a}, size)
			if _, err := c.Write(want); err != nil {
				t.Errorf("write %d bytes to %v: %v", size, dst, err)
			}
			got := make([]byte, 1<<16)
			if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("echo of %d bytes by %v is %d bytes, %v", size, dst, n, err)
			}
			c.Close()
		}
		c, err := net.Dial("udp", port(dst, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Read from an unreachable port of %v = %v, want ECONNREFUSED", dst, err)
		}
		c.Close()
	}
}

// kernelDialIn dials from the stack to sockets of the kernel.
func kernelDialIn(t *testing.T, s *netstack.Stack) {
	for _, a := range []struct{ src, dst netip.Addr }{{foreign4, client4}, {foreign6, client6}} {
		l, err := net.Listen("tcp", port(a.dst, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		to := l.Addr().(*net.TCPAddr).AddrPort()
		c, err := s.DialTCP(testContext(t), port(a.src, 4711), to)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := peer.RemoteAddr().String(), port(a.src, 4711).String(); got != want {
			t.Errorf("conn from %v, want %v", got, want)
		}
		peer.Close()
		c.Close()
		l.Close()
		if _, err := s.DialTCP(testContext(t), port(a.src, 4712), to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("DialTCP to a closed port = %v, want ECONNREFUSED", err)
		}
	}
}
