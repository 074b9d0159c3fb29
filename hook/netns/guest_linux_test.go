package netns

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// engineNet is what the engine of the tests gives a container: an address in a
// network of its own, and a way out of it.
var (
	engineAddr    = netip.MustParseAddr("203.0.113.5")
	engineNet     = netip.MustParsePrefix("203.0.113.0/24")
	engineGateway = netip.MustParseAddr("203.0.113.1")
	engineNear    = netip.MustParseAddr("203.0.113.9")
)

// guestMain is a container as far as the network goes: it has an interface of its
// engine's, becomes a guest, and says how packets would leave before and after the
// session ended. Between the two it sends a datagram and waits for the answer.
func guestMain(args []string) int {
	if err := engineInterface(); err != nil {
		fmt.Println("error", err)
		return 1
	}
	ended := make(chan error, 1)
	go func() { ended <- beGuest(args[0]) }()
	for isReady() != 0 {
		select {
		case err := <-ended:
			fmt.Println("ended", err)
			return 1
		case <-time.After(5 * time.Millisecond):
		}
	}
	fmt.Println("ready")
	for _, line := range ways() {
		fmt.Println(line)
	}
	fmt.Println("answer", exchange())
	<-ended
	fmt.Println("ended")
	for _, line := range ways() {
		fmt.Println(line)
	}
	return 0
}

func engineInterface() error {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far0"}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	for _, name := range []string{"lo", "eth0", "far0"} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return err
		}
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(engineAddr, engineNet.Bits()))}); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: ipNet(everything(engineAddr)), Gw: engineGateway.AsSlice()})
}

// ways says by which interface packets would leave.
func ways() []string {
	var out []string
	for _, q := range []struct{ from, to netip.Addr }{
		{to: far4}, {to: engineNear}, {from: engineAddr, to: far4}, {to: far6},
	} {
		opts := &netlink.RouteGetOptions{}
		if q.from.IsValid() {
			opts.SrcAddr = q.from.AsSlice()
		}
		text := fmt.Sprintf("way %v %v ", q.from, q.to)
		routes, err := netlink.RouteGetWithOptions(q.to.AsSlice(), opts)
		switch {
		case err != nil:
			text += err.Error()
		case len(routes) == 0:
			text += "none"
		default:
			l, err := netlink.LinkByIndex(routes[0].LinkIndex)
			if err != nil {
				text += err.Error()
				break
			}
			src, _ := netip.AddrFromSlice(routes[0].Src)
			text += l.Attrs().Name + " from " + src.Unmap().String()
		}
		out = append(out, text)
	}
	return out
}

// exchange sends a datagram by an ordinary socket and returns the answer.
func exchange() string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Connect(fd, sockaddr(netip.AddrPortFrom(far4, 7))),
	)
	if err == nil {
		_, err = unix.Write(fd, []byte("question"))
	}
	buf := make([]byte, 64)
	n := 0
	if err == nil {
		err = hooktest.Again(func() (err error) { n, err = unix.Read(fd, buf); return err })
	}
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

// guest starts guestMain in namespaces of its own and returns what it says.
func guest(t *testing.T, path string) *bufio.Scanner {
	t.Helper()
	cmd := exec.Command(hooktest.Self, "__guest", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		hooktest.Unavailable(t, "netns", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return bufio.NewScanner(out)
}

// says reads lines up to one that begins with the word.
func says(t *testing.T, lines *bufio.Scanner, word string) []string {
	t.Helper()
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
		if first, _, _ := strings.Cut(lines.Text(), " "); first == word {
			return got
		}
	}
	t.Fatalf("it does not say %q: %q", word, got)
	return nil
}

// TestGuest has a namespace join that has a network already.
func TestGuest(t *testing.T) {
	start(t, pod4) // skips
	path := filepath.Join(shortDir(t), "guests.sock")
	ln, err := ListenGuests(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	lines := guest(t, path)
	c, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	g, err := Welcome(t.Context(), c, GuestConfig{Addrs: []netip.Addr{pod4, pod6}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("device %s", g.Kind())
	if nets := g.Nets(); len(nets) != 1 || nets[0] != engineNet {
		t.Errorf("networks %v, want %v", nets, engineNet)
	}
	says(t, lines, "ready")
	for _, want := range []string{
		"way invalid IP " + far4.String() + " pod0 from " + pod4.String(),
		"way invalid IP " + engineNear.String() + " eth0 from " + engineAddr.String(),
		"way " + engineAddr.String() + " " + far4.String() + " eth0 from invalid IP",
		"way invalid IP " + far6.String() + " pod0 from " + pod6.String(),
	} {
		if got := says(t, lines, "way"); got[0] != want {
			t.Errorf("got %q, want %q", got[0], want)
		}
	}
	dst := netip.AddrPortFrom(far4, 7)
	p := expect(t, g, "the datagram", func(p packet) bool { return p.dst == dst })
	if p.src.Addr() != pod4 || string(p.payload) != "question" {
		t.Errorf("got %q from %v", p.payload, p.src)
	}
	if _, err := g.Write([][]byte{udpPacket(dst, p.src, []byte("found"))}, 0); err != nil {
		t.Fatal(err)
	}
	if got := says(t, lines, "answer"); got[0] != "answer found" {
		t.Errorf("got %q", got)
	}
	if err := g.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	says(t, lines, "ended")
	for _, want := range []string{"no route to host", "eth0 from", "eth0 from", "no route to host"} {
		if got := says(t, lines, "way"); !strings.Contains(got[0], want) {
			t.Errorf("after the end: %q, want %s", got[0], want)
		}
	}
}

// TestGuestRefused checks that a guest is told why it may not join.
func TestGuestRefused(t *testing.T) {
	start(t, pod4) // skips
	path := filepath.Join(shortDir(t), "guests.sock")
	ln, err := ListenGuests(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	lines := guest(t, path)
	c, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Welcome(t.Context(), c, GuestConfig{Addrs: []netip.Addr{pod4}, Admit: func(nets []netip.Prefix) error {
		return fmt.Errorf("not with %v", nets)
	}})
	want := fmt.Sprintf("not with [%v]", engineNet)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Welcome: %v", err)
	}
	if got := says(t, lines, "ended"); got[0] != "ended "+want {
		t.Errorf("the guest: %q", got)
	}
}
