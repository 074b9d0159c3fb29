package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary a capture helper.
func TestMain(m *testing.M) {
	if os.Getenv(helperVar) != "" {
		os.Exit(HelperMain())
	}
	os.Exit(m.Run())
}

const (
	inNamespace = "BORROWNET_TEST_IN_NAMESPACE"
	helperVar   = "BORROWNET_TEST_HELPER"
)

// needsNamespace reports whether the test runs in namespaces of its own, where it may open packet sockets. If it does not,
// needsNamespace runs it there, and the caller returns.
func needsNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
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
		reason := fmt.Sprintf("needs netns: make user and network namespace: %v", err)
		for r := range strings.SplitSeq(os.Getenv("BORROWNET_REQUIRE"), ",") {
			if r == "netns" || r == "all" {
				t.Fatal(reason)
			}
		}
		t.Skip(reason)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("in its namespace: %v\n%s", err, &out)
	}
	return false
}

// raise makes a pod's interfaces: lo, and eth0 with its addresses.
func raise(t *testing.T) netlink.Link {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "node0"}); err != nil {
		t.Fatalf("needs netns: make a veth pair: %v", err)
	}
	node, err := netlink.LinkByName("node0")
	if err != nil {
		t.Fatal(err)
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(node), netlink.LinkSetUp(eth)); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{pod4.String() + "/24", pod6.String() + "/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(eth, addr); err != nil {
			t.Fatal(err)
		}
	}
	return eth
}

// taken gathers what a capture hands out.
type taken struct {
	mu      sync.Mutex
	bytes   map[netip.AddrPort]int    // payload by who sent it, retransmissions included
	first   map[netip.AddrPort]uint32 // sequence number of it
	extent  map[netip.AddrPort]int    // of the stream
	packets int
	lost    uint64
}

func (k *taken) push(p Packet, spec Spec) {
	s, ok := parse(p, spec.server)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !ok {
		k.lost++
		return
	}
	k.packets++
	from := s.server
	if s.fromClient {
		from = s.client
		if p.Wire != len(p.Data) {
			k.lost++ // a request that is cut
		}
	}
	k.bytes[from] += s.payload
	if s.payload > 0 {
		if k.extent[from] == 0 {
			k.first[from] = s.seq
		}
		k.extent[from] = max(k.extent[from], int(s.seq-k.first[from])+s.payload)
	}
}

func (k *taken) of(a netip.AddrPort) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.extent[a]
}

// twice reports whether packets of a were handed out twice: retransmissions are fewer.
func (k *taken) twice(a netip.AddrPort) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bytes[a] >= 2*k.extent[a]
}

// waitFor waits for a condition.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

// run runs a capture until the test ends.
func run(t *testing.T, c *Capture, spec Spec) *taken {
	t.Helper()
	k := &taken{bytes: make(map[netip.AddrPort]int), first: make(map[netip.AddrPort]uint32), extent: make(map[netip.AddrPort]int)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, func(p Packet) { k.push(p, spec) }, func(n uint64) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.lost += n
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the capture ends with %v", err)
		}
		if n := c.Counters().Dropped; n > 0 {
			t.Errorf("the kernel dropped %d packets", n)
		}
	})
	return k
}

// serveOne accepts one connection, reads it to its end and answers with a number of bytes.
func serveOne(t *testing.T, ln net.Listener, answer int) {
	t.Helper()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(io.Discard, c)
		_, _ = c.Write(make([]byte, answer))
	}()
}

// TestCaptureOnLoopback captures each request once, whole, of either family, and nothing of other ports; of answers it has
// the headers.
func TestCaptureOnLoopback(t *testing.T) {
	if !needsNamespace(t) {
		return
	}
	raise(t)
	const other = 8081
	for _, at := range []netip.Addr{pod4, pod6} {
		t.Run(at.String(), func(t *testing.T) {
			ln, err := net.Listen("tcp", port(at, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			server := ln.Addr().(*net.TCPAddr).AddrPort()
			quiet, err := net.Listen("tcp", port(at, other).String())
			if err != nil {
				t.Fatal(err)
			}
			defer quiet.Close()
			spec := Spec{Loopback: []uint16{server.Port()}, Addrs: []netip.Addr{pod4, pod6}}
			c, err := Open(spec, "")
			if err != nil {
				t.Fatal(err)
			}
			k := run(t, c, spec)
			if !slices.Contains(c.Interfaces(), "lo") {
				t.Errorf("interfaces %v", c.Interfaces())
			}
			const request, answer = 3 << 20, 1 << 20
			serveOne(t, quiet, 10)
			serveOne(t, ln, answer)
			var clients []netip.AddrPort
			for _, l := range []net.Listener{quiet, ln} {
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				clients = append(clients, conn.LocalAddr().(*net.TCPAddr).AddrPort())
				if _, err := conn.Write(make([]byte, request)); err != nil {
					t.Fatal(err)
				}
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
			waitFor(t, "the answer was captured", func() bool { return k.of(server) >= answer })
			if got := k.of(clients[1]); got != request || k.twice(clients[1]) {
				t.Errorf("%d bytes of the request, want %d, each once", got, request)
			}
			if got := k.of(clients[0]); got != 0 {
				t.Errorf("%d bytes of a port that is not captured", got)
			}
			waitFor(t, "as many packets were taken as the kernel counts", func() bool {
				n := c.Counters().Packets
				k.mu.Lock()
				defer k.mu.Unlock()
				return n == uint64(k.packets)
			})
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.lost > 0 {
				t.Errorf("%d packets are lost, cut or unreadable", k.lost)
			}
		})
	}
}

// TestCaptureOnThePodsInterface captures both directions of what reaches a pod through its veth, not what the pod calls.
func TestCaptureOnThePodsInterface(t *testing.T) {
	if !needsNamespace(t) {
		return
	}
	link := raise(t)
	spec := Spec{Pod: []uint16{9090}, Addrs: []netip.Addr{pod4}}
	c, err := Open(spec, "")
	if err != nil {
		t.Fatal(err)
	}
	k := run(t, c, spec)
	// Nobody answers behind the veth: raw packets stand for a connection's.
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	peer := netip.MustParseAddr("198.51.100.9")
	if err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: peer.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}); err != nil {
		t.Fatal(err)
	}
	send := func(src, dst netip.AddrPort, payload int) {
		t.Helper()
		if err := unix.Sendto(raw, packet(src, dst, 0x10, 1, payload), 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
	}
	send(port(pod4, 4000), port(peer, 9090), 100) // the pod's own call
	send(port(pod4, 9090), port(peer, 4000), 700) // an answer
	waitFor(t, "the answer was captured", func() bool { return k.of(port(pod4, 9090)) == 700 })
	if got := k.of(port(pod4, 4000)); got != 0 || c.Counters().Packets != 1 {
		t.Errorf("%d bytes of the pod's own call, %d packets", got, c.Counters().Packets)
	}
	if names := c.Interfaces(); names[Pod] != "eth0" || names[Loopback] != "lo" {
		t.Errorf("interfaces %v", names)
	}
}

// TestHelperOpensTheSocket gets the socket from another process, as an agent without CAP_NET_RAW does.
func TestHelperOpensTheSocket(t *testing.T) {
	if !needsNamespace(t) {
		return
	}
	raise(t)
	t.Setenv(helperVar, "1")
	script := t.TempDir() + "/helper"
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The helper gets no environment, so that this has to say which program the test is.
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\n%s=1 exec %s\n", helperVar, self), 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := fromHelper(script)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || family != unix.AF_PACKET {
		t.Errorf("family %d, %v", family, err)
	}
}

// TestNotPermitted: every reason for which there is no socket is said, and is an ErrNotPermitted.
func TestNotPermitted(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct{ name, helper, want string }{
		{"missing", dir + "/nothing", "no capture helper"},
		{"not_executable", write("plain", "", 0o644), "runtime does not give it CAP_NET_RAW"},
		{"no_capability", write("refused", "#!/bin/sh\necho 'socket AF_PACKET: operation not permitted' >&2\nexit 1\n", 0o755), "may not gain CAP_NET_RAW"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := fromHelper(tt.helper)
			if !errors.Is(err, ErrNotPermitted) || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("%v, want ErrNotPermitted that says %q", err, tt.want)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		_, err := fromHelper(write("silent", "#!/bin/sh\nexit 0\n", 0o755))
		if err == nil || errors.Is(err, ErrNotPermitted) {
			t.Errorf("a helper that sends nothing: %v", err)
		}
	})
}
